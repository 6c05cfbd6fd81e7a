"""Does the action probe of stage 1 order policies? A picture of both, from results/few_labels.json
and results/transition_probes.json.
"""

import json
from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt
from scipy.stats import spearmanr

from alam_core.errors import UserError
from alam_training.methods import VIDEO, arm_label, arm_place
from alam_training.report.plots import save

LABELS = "10"  # labelled demonstrations a task


def picture_name(world: str) -> str:
    """The file name of a world's picture."""
    return f"action_probe_{world}.png"


def draw_success_by_probe(file: Path, out: Path) -> list[Path]:
    """For each world a picture in ``out``: success of the policies that also learn from video,
    against ``action_r2`` of their transitions, both with ten labels. Worlds with fewer than three
    such policies have none.

    file: few_labels.json; transition_probes.json lies beside it. Raises UserError if a file is not
    what its name says.
    """
    probes_file = file.parent / "transition_probes.json"
    if not probes_file.is_file():
        return []
    written = []
    try:
        arms_of = json.loads(file.read_text())["values"]
        probes = json.loads(probes_file.read_text())["values"]
        for world, arms in arms_of.items():
            points = {
                key: (r2[LABELS], arms[key][LABELS])
                for key in sorted(arms, key=arm_place)
                if key.endswith(VIDEO) and LABELS in arms[key]
                if (r2 := probes.get(world, {}).get(key.removesuffix(VIDEO), {}).get("action_r2"))
            }
            if len(points) >= 3:
                written.append(_draw(world, points, out))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"'{file}' or '{probes_file}' is no such result ({error!r})") from None
    return written


def _draw(world: str, points: dict[str, tuple[float, dict]], out: Path) -> Path:
    figure, axes = plt.subplots(figsize=(5.6, 4.0), layout="constrained")
    for number, (key, (r2, value)) in enumerate(points.items()):
        success, (low, high) = value["success"], value["ci95"]
        error = [[100 * (success - low)], [100 * (high - success)]]
        axes.errorbar(
            [r2],
            [100 * success],
            error,
            fmt="o",
            capsize=2,
            color=f"C{number % 10}",
            label=arm_label(key),
        )
    r2s, successes = np.array([(r2, value["success"]) for r2, value in points.values()]).T
    rho = spearmanr(r2s, successes).statistic
    axes.set(
        xlabel=f"R² of actions from z, {LABELS} labelled episodes a task",
        ylabel="success (%)",
        ylim=(0, None),
        title=f"{world}: rank correlation {rho:.2f}, {len(points)} encoders",
    )
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    return save(figure, out / picture_name(world))
