"""From the figures of single runs to the tables of results/transition_probes.json and
results/transition_ablation.json.

A figure is a number, None, or a table {"1": number, .. "5": number} over the horizons in units of
k.
"""

import math
import statistics
from collections.abc import Callable
from typing import Any

Figures = dict[str, Any]
METHODS = (
    "lam",
    "alam",
    "alam_weight3",
    "antisymmetric",
    "potential",
    "no_rev_add",
    "no_rev",
    "no_add",
)  # in this order, then others
ABLATION = {
    "lam": "lam",
    "no_rev_add": "no_rev_add",
    "no_rev": "no_rev",
    "no_add": "no_add",
    "full": "alam",
}  # Table 4's rows: runs
COPY = ("psnr_copy", "ssim_copy", "lpips_copy")  # of the world, not of a model
DEFINITIONS = {
    "horizons": "1 to 5 in units of k frames; the means are over held-out clips, then over seeds; _std: sample deviation over seeds",
    "trained_horizon": "the largest span of a training triplet, in units of k",
    "add_rel": "mean ||z_0^t - Z_t|| over the mean norm of z_0^t at that horizon",
    "rev_rel": "mean ||z_0^t + z_t^0|| over the mean norm of z_0^t at that horizon",
    "centred": "the same after each kind of latent lost its mean over the clips at its horizon",
    "ratio": "lam's relative error over alam's; null where the latter is exactly 0",
    "ratio_centred": "mean-subtracted lam's relative error over alam's as it is",
    "ratio_both_centred": "mean-subtracted lam's relative error over mean-subtracted alam's",
}


def with_ends(figures: Figures) -> Figures:
    """``figures`` of ``probe_horizons`` without the copy's, and what Figure 4 (B) shows:
    ``<score>_change``, from the model's own score at k, and the ends of the PSNR's tables as
    numbers: psnr_k, psnr_5k, psnr_cum_5k.
    """
    scores = [name + way for name in ("psnr", "ssim", "lpips") for way in ("", "_cum")]
    changes = {
        f"{name}_change": figures[name]
        and {
            t: value - figures[name.removesuffix("_cum")]["1"] for t, value in figures[name].items()
        }
        for name in scores
    }
    ends = {
        "psnr_k": figures["psnr"]["1"],
        "psnr_5k": figures["psnr"]["5"],
        "psnr_cum_5k": figures["psnr_cum"]["5"],
    }
    return {
        **ends,
        **{name: value for name, value in figures.items() if name not in COPY},
        **changes,
    }


def mean_of(parts: list[Figures]) -> Figures:
    """Means of figures, key by key and horizon by horizon; None where one is None."""
    return {name: _across([part[name] for part in parts], statistics.fmean) for name in parts[0]}


def over_seeds(parts: dict[int, Figures]) -> Figures:
    """Means over seeds; ``<name>_std`` beside each is the sample deviation, None for one seed;
    ``seeds`` names them.
    """
    figures = list(parts.values())
    std = statistics.stdev if len(parts) > 1 else lambda _: None
    deviations = {
        f"{name}_std": _across([part[name] for part in figures], std) for name in figures[0]
    }
    means = mean_of(figures)
    merged = {
        key: value
        for name in means
        for key, value in ((name, means[name]), (f"{name}_std", deviations[f"{name}_std"]))
    }
    why = {} if len(parts) > 1 else {"why": "no deviation from one seed"}
    return {"seeds": sorted(parts), **merged, **why}


def ratios(
    above: Figures, below: Figures, centred_above: bool = False, centred_below: bool = False
) -> dict[str, float | None]:
    """Additivity error at 5k and reversal error at 5k and k of one method over another's; None
    where the latter is zero.
    """
    up, down = ("centred" if centred else "rel" for centred in (centred_above, centred_below))
    picks = {"add_5k": ("add", "5"), "rev_5k": ("rev", "5"), "rev_k": ("rev", "1")}
    return {
        name: float(f"{above[f'{kind}_{up}'][t] / below[f'{kind}_{down}'][t]:.5g}")
        if below[f"{kind}_{down}"][t]
        else None
        for name, (kind, t) in picks.items()
    }


def world_values(methods: dict[str, dict[int, Figures]], copy: Figures) -> dict[str, Any]:
    """One world of transition_probes: method -> seed -> figures of ``probe_horizons``, in the
    layout of the result file.
    """
    values: dict[str, Any] = {
        name: over_seeds({seed: with_ends(f) for seed, f in parts.items()})
        for name, parts in methods.items()
    }
    values["copy_psnr_k"] = copy["psnr_copy"]["1"]
    values["copy"] = {name.removesuffix("_copy"): copy[name] for name in COPY}
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


def ablation_values(worlds: dict[str, dict[str, dict[int, Figures]]]) -> dict[str, Any]:
    """Table 4's rows that are there: row -> means over the worlds, then over seeds; ``worlds``
    holds the same world by world.
    """
    values: dict[str, Any] = {}
    by_world: dict[str, Any] = {world: {} for world in worlds}
    for row, method in ABLATION.items():
        parts = {world: methods[method] for world, methods in worlds.items() if method in methods}
        for world, seeds in parts.items():
            by_world[world][row] = over_seeds({s: with_ends(f) for s, f in seeds.items()})
        common = set.intersection(*(set(parts.get(world, ())) for world in worlds))
        if common:
            values[row] = over_seeds(
                {
                    s: mean_of([with_ends(seeds[s]) for seeds in parts.values()])
                    for s in sorted(common)
                }
            )
    return {**values, "worlds": by_world}


def _across(values: list[Any], reduce: Callable[[list[float]], float | None]) -> Any:
    if any(value is None for value in values):
        return None
    if isinstance(values[0], dict):
        return {key: _across([value[key] for value in values], reduce) for key in values[0]}
    reduced = reduce([float(value) for value in values])
    return float(f"{reduced:.6g}") if reduced is not None and math.isfinite(reduced) else None
