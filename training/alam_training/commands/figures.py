"""Draw the pictures in docs/figures: plots like the paper's Figure 4, sheets of decoded frames like
its Figures 6 and 7, success of policies.

    python training/figures.py
    python training/figures.py --models runs/worlds/lam_s0 runs/worlds/alam_s0

Without models it plots the measurements in results/. With models it also draws sheets of frames
that these models decode.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path

from rich.progress import Progress

from alam_core.command_line import join_values
from alam_core.config import parse_args
from alam_core.errors import UserError
from alam_training.report.few_labels import draw_few_labels
from alam_training.report.plots import draw_plots
from alam_training.report.policies import draw_success
from alam_training.report.probe_success import draw_success_by_probe
from alam_training.report.sheets import draw_sheets
from alam_training.stage1.runs import find_runs


@dataclass
class FiguresConfig:
    """What to draw.

    Args:
        models: run folders of training/pretrain.py, for the sheets of decoded frames. A
            reconstruction sheet compares all of them, a transfer sheet shows one.
        transfer: methods that get a transfer sheet; empty means all.
        gap: k in frames.
        results: folder with transition_probes.json, generation_ablation.json and few_labels.json;
            a missing file is skipped.
        out: folder for the pictures.
    """

    models: list[str] = field(default_factory=list)
    transfer: list[str] = field(default_factory=list)
    gap: int = 5
    results: str = "results"
    out: str = "docs/figures"


def main() -> None:
    args = join_values(sys.argv[1:], "--models")
    config = parse_args(FiguresConfig, "Draw the pictures in docs/figures.", args)
    results = Path(config.results)
    plots = [
        (results / "transition_probes.json", draw_plots),
        (results / "generation_ablation.json", draw_success),
        (results / "few_labels.json", draw_few_labels),
        (results / "few_labels.json", draw_success_by_probe),
    ]
    measured = [(file, draw) for file, draw in plots if file.is_file()]
    if not measured and not config.models:
        missing = " and no ".join(f"'{file}'" for file in dict.fromkeys(file for file, _ in plots))
        raise UserError(
            f"there is no {missing}, and no model is given: run training/probe.py with "
            "--record true first"
        )
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    written = [path for file, draw in measured for path in draw(file, out)]
    if config.models:
        with Progress(transient=True) as progress:
            task = progress.add_task("sheets", total=None)
            written += draw_sheets(find_runs(config.models), config.transfer, config.gap, out)
            progress.remove_task(task)
    for path in written:
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB")
