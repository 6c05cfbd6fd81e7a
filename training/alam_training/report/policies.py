"""A plot of how policies succeeded, each training apart, drawn from
results/generation_ablation.json.
"""

import json
from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from alam_core.errors import UserError
from alam_training.report.plots import save
from alam_training.report.stage2 import INTERVENTIONS, interventions, rows_of_methods

COLOUR, OWN, PAPER = "#56B4E9", "#0072B2", "#D55E00"  # bars, single trainings, the paper's figures


def draw_success(file: Path, out: Path) -> list[Path]:
    """One picture in ``out``: methods, and interventions beside them. Raises UserError where
    ``file`` is no such result.
    """
    try:
        values = json.loads(file.read_text())["values"]
        parts = [("trained and played alike", rows_of_methods(values), values)]
        parts += [(title, list(INTERVENTIONS), played) for title, played in interventions(values)]
        figure, axes = plt.subplots(
            1, len(parts), figsize=(5 * len(parts), 4), layout="constrained", squeeze=False
        )
        for axis, (title, rows, played) in zip(axes[0], parts, strict=True):
            _bars(
                axis, [(words, paper, played[key]) for key, words, paper in rows if key in played]
            )
            axis.set_title(title, fontsize=9.5, loc="left")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"'{file}' is no result of training/evaluate.py ({error!r}): measure again with --result"
        ) from None
    return [save(figure, out / "generation_success.png")]


def _bars(axis: Axes, rows: list[tuple[str, float | None, dict[str, Any]]]) -> None:
    """A bar a method with the interval of all its episodes, a point a training, a line for the
    paper's figure.
    """
    for height, (_, paper, value) in enumerate(rows):
        low, high = value["ci95"]
        axis.barh(height, 100 * value["success"], height=0.6, color=COLOUR)
        axis.plot([100 * low, 100 * high], [height, height], color="0.25", linewidth=1.2)
        each = value.get("per_policy", {})
        shares = [100 * won * len(each) / value["episodes"] for won in each.values()]
        axis.plot(
            shares,
            [height] * len(shares),
            "o",
            color=OWN,
            markersize=5,
            markeredgecolor="white",
            label="a training" * (not height),
        )
        if paper is not None:
            axis.plot(
                [paper] * 2,
                [height - 0.38, height + 0.38],
                color=PAPER,
                linewidth=2,
                label="paper (pi0, 50 tasks)" * (not height),
            )
    axis.set_yticks(range(len(rows)), [words for words, _, _ in rows], fontsize=8.5)
    axis.invert_yaxis()
    axis.set_xlim(0, 100)
    axis.set_xlabel("success (%)")
    axis.grid(axis="x", color="0.9", linewidth=0.6)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(
        fontsize=7.5, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.13), ncol=2
    )
