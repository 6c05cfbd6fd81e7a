"""Plots like the paper's Figure 4, drawn from results/transition_probes.json."""

import json
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from alam_core.errors import UserError
from alam_core.latent_action.probes import HORIZONS
from alam_training.methods import label as method_label

# Colour and marker of each method, distinguishable for the colour-blind and in grey.
STYLES = {
    "lam": ("#D55E00", "o"),
    "alam": ("#0072B2", "s"),
    "alam_weight3": ("#56B4E9", "v"),
    "antisymmetric": ("#009E73", "^"),
    "potential": ("#CC79A7", "D"),
}
SPARE = ("#E69F00", "#7F7F7F", "#000000")
EXACT = 1e-4  # smaller relative errors are rounding; drawing them would flatten the others
TIMES = np.arange(1, HORIZONS + 1)


def draw_plots(file: Path, out: Path) -> list[Path]:
    """Two pictures per world in ``out``: algebraic errors and reconstruction. Raises UserError if
    ``file`` is not a result of the probes.
    """
    try:
        values = json.loads(file.read_text())["values"]
        worlds = {
            name: world
            for name, world in values.items()
            if isinstance(world, dict) and "copy_psnr_k" in world
        }
        trained = float(values["trained_horizon"])
        written = []
        for name, world in worlds.items():
            methods = {
                key: part
                for key, part in world.items()
                if isinstance(part, dict) and "add_rel" in part
            }
            written.append(
                save(
                    _algebra(name, methods, world, trained), out / f"transition_algebra_{name}.png"
                )
            )
            written.append(
                save(
                    _reconstruction(name, methods, trained),
                    out / f"transition_reconstruction_{name}.png",
                )
            )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"'{file}' is not a result of training/probe.py ({error!r}): measure again with "
            "--record true"
        ) from None
    if not worlds:
        raise UserError(
            f"'{file}' contains no world: measure again with training/probe.py --record true"
        )
    return written


def _algebra(world: str, methods: dict[str, Any], values: dict[str, Any], trained: float) -> Figure:
    """Figure 4 (A) with relative errors. Thin dashed lines: mean-subtracted latents."""
    figure, axes = plt.subplots(1, 2, figsize=(9.6, 4.4), layout="constrained")
    for axis, kind, title in (
        (axes[0], "add", "A.1  additivity"),
        (axes[1], "rev", "A.2  reversal"),
    ):
        first = 1 if kind == "add" else 0  # Add(1) is 0 by construction
        for index, (name, metrics) in enumerate(methods.items()):
            colour, marker = _style(name, index)
            label = method_label(name)
            mean, spread = _row(metrics, f"{kind}_rel"), _row(metrics, f"{kind}_rel_std")
            if mean[first:].max() < EXACT:
                axis.plot(
                    [],
                    [],
                    color=colour,
                    marker=marker,
                    label=f"{label}: exact ({mean[first:].max():.1g})",
                )
                continue
            _line(axis, first, mean, spread, colour, marker, label, positive=True)
            centred = _row(metrics, f"{kind}_centred")
            axis.plot(
                TIMES[first:],
                centred[first:],
                color=colour,
                linewidth=1,
                linestyle=(0, (4, 2)),
                alpha=0.8,
            )
        axis.plot(
            [], [], color="0.4", linewidth=1, linestyle=(0, (4, 2)), label="mean-subtracted z"
        )
        axis.legend(
            fontsize=8, frameon=False, ncol=2, loc="upper center", bbox_to_anchor=(0.5, -0.1)
        )
        axis.set_yscale("log")
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_locator(NullLocator())
        ratio, centred_ratio = (
            values.get(key, {}).get(f"{kind}_5k") for key in ("ratio", "ratio_centred")
        )
        if ratio is not None and centred_ratio is not None:
            title += (
                f", LAM / ALAM at 5k: {ratio:.3g}\nmean-subtracted LAM / ALAM: {centred_ratio:.3g}"
            )
        axis.set_title(title, fontsize=9, loc="left")
        axis.set_ylabel("error / mean norm of z" if kind == "add" else "")
        _horizons(axis, trained)
    figure.suptitle(f"{world}, held-out episodes: errors relative to the norm of z", fontsize=11)
    return figure


def _reconstruction(world: str, methods: dict[str, Any], trained: float) -> Figure:
    """Figure 4 (B): change from each model's own score at k, direct above, cumulative below."""
    shown = [
        score
        for score in ("psnr", "ssim", "lpips")
        if all(part[score] is not None for part in methods.values())
    ]
    figure, axes = plt.subplots(
        2,
        len(shown),
        figsize=(3.3 * len(shown), 5.8),
        layout="constrained",
        sharex=True,
        squeeze=False,
    )
    for column, score in enumerate(shown):
        for row, way in enumerate(("", "_cum")):
            axis = axes[row, column]
            for index, (name, metrics) in enumerate(methods.items()):
                colour, marker = _style(name, index)
                label = method_label(name)
                mean, spread = (
                    _row(metrics, f"{score}{way}_change"),
                    _row(metrics, f"{score}{way}_change_std"),
                )
                _line(axis, 0, mean, spread, colour, marker, f"{label}: {metrics[score]['1']:.3g}")
            axis.axhline(0, color="0.6", linewidth=0.8)
            better = "lower is better" if score == "lpips" else "higher is better"
            if row == 0:
                axis.set_title(f"{score.upper()} ({better})", fontsize=9.5)
            else:
                axis.legend(
                    title="at k",
                    fontsize=7.5,
                    title_fontsize=7.5,
                    frameon=False,
                    ncol=2,
                    loc="upper center",
                    bbox_to_anchor=(0.5, -0.12),
                )
            if column == 0:
                axis.set_ylabel("change from k, " + ("cumulative" if way else "direct"))
            _horizons(axis, trained)
        low, high = (
            f(axes[row, column].get_ylim()[i] for row in (0, 1)) for f, i in ((min, 0), (max, 1))
        )
        for row in (0, 1):
            axes[row, column].set_ylim(low, high)
    figure.suptitle(
        f"{world}, held-out episodes: change of reconstruction from the horizon k", fontsize=11
    )
    return figure


def _line(
    axis: Axes,
    first: int,
    mean: np.ndarray,
    spread: np.ndarray,
    colour: str,
    marker: str,
    label: str,
    positive: bool = False,
) -> None:
    axis.plot(
        TIMES[first:],
        mean[first:],
        color=colour,
        marker=marker,
        markersize=4,
        linewidth=1.6,
        label=label,
    )
    low = mean - spread
    if positive:  # a logarithmic axis cannot show zero
        low = np.maximum(low, mean / 10)
    axis.fill_between(
        TIMES[first:], low[first:], (mean + spread)[first:], color=colour, alpha=0.2, linewidth=0
    )


def _horizons(axis: Axes, trained: float) -> None:
    """Ticks k to 5k; grey beyond the span of the training triplets."""
    axis.set_xticks(TIMES, ["k", *(f"{t}k" for t in TIMES[1:])])
    axis.set_xlim(0.8, HORIZONS + 0.2)
    if trained < HORIZONS:
        axis.axvspan(max(0.8, trained + 0.5), HORIZONS + 0.2, color="0.92", zorder=0)
    axis.grid(axis="y", color="0.85", linewidth=0.6)
    axis.spines[["top", "right"]].set_visible(False)


def _style(name: str, index: int) -> tuple[str, str]:
    """Colour and marker of a method; methods without a style of their own take spare colours."""
    return STYLES.get(name, (SPARE[index % len(SPARE)], "v"))


def _row(metrics: dict[str, Any], name: str) -> np.ndarray:
    """A table over the horizons as (5,); a deviation that was not measured as zeros."""
    table = metrics[name]
    return (
        np.zeros(HORIZONS)
        if table is None
        else np.array([table[str(t)] or 0.0 for t in TIMES], float)
    )


def save(figure: Figure, path: Path) -> Path:
    """Write a figure to ``path``, close it and return the path."""
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path
