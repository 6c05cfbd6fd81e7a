"""Pictures in docs/figures: plots like the paper's Figure 4, sheets of decoded frames like Figures
6 and 7, success of policies.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path

from rich.progress import Progress

from alam_core.config import parse_args
from alam_core.errors import UserError
from alam_training.commands.probe import find_runs, listed
from alam_training.report.plots import draw_plots
from alam_training.report.policies import draw_success
from alam_training.report.sheets import draw_sheets

INTRODUCTION = """Draw the pictures of the results.

  python training/figures.py                                          plots of what was measured in results/
  python training/figures.py --models runs/worlds/lam_s0 runs/worlds/alam_s0 runs/worlds/potential_s0       also sheets of decoded frames
  python training/figures.py --help                                   every option"""


@dataclass
class FiguresConfig:
    """What to draw.

    Args:
        models: run folders of training/pretrain.py, for the sheets; each sheet compares them or
            shows the one named in transfer.
        transfer: the method whose transfer sheet is drawn; none given means each.
        gap: k in frames.
        results: folder with transition_probes.json and generation_ablation.json, each drawn where
            it is there.
        out: folder for the pictures.
    """

    models: list[str] = field(default_factory=list)
    transfer: list[str] = field(default_factory=list)
    gap: int = 5
    results: str = "results"
    out: str = "docs/figures"


def main() -> None:
    config = parse_args(
        FiguresConfig, INTRODUCTION.splitlines()[0], listed(sys.argv[1:], "--models")
    )
    drawn = {
        Path(config.results) / "transition_probes.json": draw_plots,
        Path(config.results) / "generation_ablation.json": draw_success,
    }
    there = {file: draw for file, draw in drawn.items() if file.is_file()}
    if not there and not config.models:
        missing = " and no ".join(f"'{file}'" for file in drawn)
        raise UserError(
            f"there is no {missing}, and no model is given: run training/probe.py with --record true first"
        )
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    written = [path for file, draw in there.items() for path in draw(file, out)]
    if config.models:
        with Progress(transient=True) as progress:
            task = progress.add_task("sheets", total=None)
            written += draw_sheets(find_runs(config.models), config.transfer, config.gap, out)
            progress.remove_task(task)
    for path in written:
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB")
