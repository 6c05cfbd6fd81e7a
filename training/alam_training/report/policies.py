"""A plot of the success of policies, drawn from results/generation_ablation.json."""

import json
from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from alam_core.errors import UserError
from alam_training.methods import INTERVENTIONS, Method
from alam_training.report.plots import save
from alam_training.report.stage2 import compared_methods, interventions

# Colours of bars, of single trainings and of the paper's values.
BAR, SINGLE, PAPER = "#56B4E9", "#0072B2", "#D55E00"


def draw_success(file: Path, out: Path) -> list[Path]:
    """One picture in ``out``: the methods, and next to them the interventions. Raises UserError if
    ``file`` is not a result of training/evaluate.py.
    """
    try:
        values = json.loads(file.read_text())["values"]
        parts = [("same training and evaluation", compared_methods(values), values)]
        parts += [(title, list(INTERVENTIONS), played) for title, played in interventions(values)]
        figure, axes = plt.subplots(
            1, len(parts), figsize=(5 * len(parts), 4), layout="constrained", squeeze=False
        )
        for axis, (title, methods, played) in zip(axes[0], parts, strict=True):
            _bars(axis, [(m, played[m.key]) for m in methods if m.key in played])
            axis.set_title(title, fontsize=9.5, loc="left")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"'{file}' is not a result of training/evaluate.py ({error!r}): measure again with "
            "--result"
        ) from None
    return [save(figure, out / "generation_success.png")]


def _bars(axis: Axes, rows: list[tuple[Method, dict[str, Any]]]) -> None:
    """A bar per method with the 95 % interval over all its episodes, a point per training, a line
    for the paper's value.
    """
    for height, (method, value) in enumerate(rows):
        low, high = value["ci95"]
        axis.barh(height, 100 * value["success"], height=0.6, color=BAR)
        axis.plot([100 * low, 100 * high], [height, height], color="0.25", linewidth=1.2)
        each = value.get("per_policy", {})
        shares = [100 * won * len(each) / value["episodes"] for won in each.values()]
        axis.plot(
            shares,
            [height] * len(shares),
            "o",
            color=SINGLE,
            markersize=5,
            markeredgecolor="white",
            label="one training" * (not height),
        )
        if method.paper is not None:
            axis.plot(
                [method.paper] * 2,
                [height - 0.38, height + 0.38],
                color=PAPER,
                linewidth=2,
                label="paper (pi0, 50 tasks)" * (not height),
            )
    axis.set_yticks(range(len(rows)), [method.label for method, _ in rows], fontsize=8.5)
    axis.invert_yaxis()
    axis.set_xlim(0, 100)
    axis.set_xlabel("success (%)")
    axis.grid(axis="x", color="0.9", linewidth=0.6)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(
        fontsize=7.5, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.13), ncol=2
    )
