"""Summarises the metrics of single runs in results/transition_probes.json and
results/transition_ablation.json.

A metric is a number, None, or a table {"1": number, .. "5": number} over the horizons, in units of
k.
"""

import math
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from alam_core.results import write_result
from alam_training.methods import ABLATION_ROWS

Metrics = dict[str, Any]
Worlds = dict[str, dict[str, dict[int, Metrics]]]  # world -> method -> seed -> metrics
# Methods that Table 4 shows and that are compared nowhere else.
ONLY_ABLATION = frozenset(ABLATION_ROWS.values()) - {"lam", "alam"}
COPY = ("psnr_copy", "ssim_copy", "lpips_copy")  # scores of copying the source; of no model
DEFINITIONS = {
    "horizons": "1 to 5 in units of k frames; means over held-out clips, then over seeds; _std: "
    "sample standard deviation over seeds",
    "trained_horizon": "the largest span of a training triplet, in units of k",
    "add_rel": "mean ||z_0^t - Z_t|| over the mean norm of z_0^t at that horizon",
    "rev_rel": "mean ||z_0^t + z_t^0|| over the mean norm of z_0^t at that horizon",
    "centred": "the same after the mean over the clips was subtracted from each kind of latent at "
    "its horizon",
    "action_r2": "R^2 of the mean action of a span, predicted from z, state and task by a "
    "regression that is fitted on few labelled episodes and tested on all others",
    "ratio": "relative error of lam over that of alam; null where the latter is exactly 0",
    "ratio_centred": "relative error of mean-subtracted lam over that of alam without subtraction",
    "ratio_both_centred": "relative error of mean-subtracted lam over that of mean-subtracted alam",
}


def result_metrics(metrics: Metrics) -> Metrics:
    """The metrics of one run in the layout of the result files.

    metrics: those of ``probe_horizons``. The scores of copying the source are left out. Added are
    ``<score>_change``, the difference to the model's own score at k (Figure 4 (B)), and three PSNR
    values as single numbers: psnr_k, psnr_5k, psnr_cum_5k.
    """
    scores = [name + way for name in ("psnr", "ssim", "lpips") for way in ("", "_cum")]
    changes = {
        f"{name}_change": metrics[name]
        and {
            t: value - metrics[name.removesuffix("_cum")]["1"] for t, value in metrics[name].items()
        }
        for name in scores
    }
    ends = {
        "psnr_k": metrics["psnr"]["1"],
        "psnr_5k": metrics["psnr"]["5"],
        "psnr_cum_5k": metrics["psnr_cum"]["5"],
    }
    return {
        **ends,
        **{name: value for name, value in metrics.items() if name not in COPY},
        **changes,
    }


def mean_of(parts: list[Metrics]) -> Metrics:
    """Means of metrics, key by key and horizon by horizon; None where any is None."""
    return {name: _across([part[name] for part in parts], statistics.fmean) for name in parts[0]}


def over_seeds(parts: dict[int, Metrics]) -> Metrics:
    """Means over seeds; ``<name>_std`` next to each is the sample standard deviation, None for a
    single seed; ``seeds`` lists them.
    """
    metrics = list(parts.values())
    std = statistics.stdev if len(parts) > 1 else lambda _: None
    deviations = {
        f"{name}_std": _across([part[name] for part in metrics], std) for name in metrics[0]
    }
    means = mean_of(metrics)
    merged = {
        key: value
        for name in means
        for key, value in ((name, means[name]), (f"{name}_std", deviations[f"{name}_std"]))
    }
    why = {} if len(parts) > 1 else {"why": "no deviation from one seed"}
    return {"seeds": sorted(parts), **merged, **why}


def ratios(
    above: Metrics, below: Metrics, centred_above: bool = False, centred_below: bool = False
) -> dict[str, float | None]:
    """Ratios of the errors of ``above`` to those of ``below``: additivity at 5k, reversal at 5k and
    at k. None where the error of ``below`` is zero.

    centred_above, centred_below: take the errors of mean-subtracted latents.
    """
    up, down = ("centred" if centred else "rel" for centred in (centred_above, centred_below))
    picks = {"add_5k": ("add", "5"), "rev_5k": ("rev", "5"), "rev_k": ("rev", "1")}
    return {
        name: float(f"{above[f'{kind}_{up}'][t] / below[f'{kind}_{down}'][t]:.5g}")
        if below[f"{kind}_{down}"][t]
        else None
        for name, (kind, t) in picks.items()
    }


def world_values(methods: dict[str, dict[int, Metrics]], copy: Metrics) -> dict[str, Any]:
    """One world in the layout of transition_probes.json.

    methods: method -> seed -> metrics of ``probe_horizons``. copy: metrics of any run, for the
    scores of copying the source.
    """
    values: dict[str, Any] = {
        name: over_seeds({seed: result_metrics(f) for seed, f in parts.items()})
        for name, parts in methods.items()
    }
    values["copy_psnr_k"] = copy["psnr_copy"]["1"]
    values["copy"] = {name.removesuffix("_copy"): copy[name] for name in COPY}
    values |= {name: copy.get(name) for name in ("action_r2_without_z", "action_r2_motion")}
    if "lam" in methods:
        lam = values["lam"]
        if "alam" in methods:
            values["ratio"] = ratios(lam, values["alam"])
            values["ratio_centred"] = ratios(lam, values["alam"], True)
            values["ratio_both_centred"] = ratios(lam, values["alam"], True, True)
        others = [name for name in methods if name not in ("lam", "alam")]
        values["ratios_of_others"] = {
            name: {
                "ratio": ratios(lam, values[name]),
                "ratio_centred": ratios(lam, values[name], True),
            }
            for name in others
        }
    return values


def ablation_values(worlds: Worlds) -> dict[str, Any]:
    """The rows of Table 4 that were measured: row -> means over the worlds, then over seeds;
    ``worlds`` holds the same for each world.
    """
    values: dict[str, Any] = {}
    by_world: dict[str, Any] = {world: {} for world in worlds}
    for row, method in ABLATION_ROWS.items():
        parts = {world: methods[method] for world, methods in worlds.items() if method in methods}
        for world, seeds in parts.items():
            by_world[world][row] = over_seeds({s: result_metrics(f) for s, f in seeds.items()})
        common = set.intersection(*(set(parts.get(world, ())) for world in worlds))
        if common:
            values[row] = over_seeds(
                {
                    s: mean_of([result_metrics(seeds[s]) for seeds in parts.values()])
                    for s in sorted(common)
                }
            )
    return {**values, "worlds": by_world}


def write_results(
    worlds: Worlds, gap: int, trained_horizon: float, no_lpips: str, folder: str
) -> list[Path]:
    """Write the two result files and return their paths; methods that only Table 4 shows go into
    the second file alone.

    gap: k in frames. trained_horizon: the largest span of a training triplet, in units of k.
    no_lpips: why LPIPS was not computed, "" if it was.
    """
    seeds = sorted(
        {seed for methods in worlds.values() for parts in methods.values() for seed in parts}
    )
    notes = {
        "definitions": DEFINITIONS,
        "gap": gap,
        "trained_horizon": trained_horizon,
        **({"why": f"no LPIPS: {no_lpips}"} if no_lpips else {}),
    }
    probes = {}
    for world, methods in worlds.items():
        shown = {name: parts for name, parts in methods.items() if name not in ONLY_ABLATION}
        if shown:
            probes[world] = world_values(shown, next(iter(next(iter(shown.values())).values())))
    paths = []
    if probes:
        paths.append(write_result("transition_probes", {**probes, **notes}, seeds, folder))
    ablation = ablation_values(worlds)
    if any(row in ablation for row in ABLATION_ROWS if ABLATION_ROWS[row] in ONLY_ABLATION):
        paths.append(write_result("transition_ablation", {**ablation, **notes}, seeds, folder))
    return paths


def _across(values: list[Any], reduce: Callable[[list[float]], float | None]) -> Any:
    """One metric of several runs (or worlds), reduced to one number, for each horizon if it is a
    table; None if any value is None.
    """
    if any(value is None for value in values):
        return None
    if isinstance(values[0], dict):
        return {key: _across([value[key] for value in values], reduce) for key in values[0]}
    reduced = reduce([float(value) for value in values])
    return float(f"{reduced:.6g}") if reduced is not None and math.isfinite(reduced) else None
