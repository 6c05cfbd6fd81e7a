"""The tables of stage 1 in docs/results.md, next to the paper's values (its Section 4.1 and
Table 4).
"""

from pathlib import Path
from typing import Any

from alam_training.methods import ABLATION_ROWS, TRANSITION_MODELS, label, place
from alam_training.report.markdown import table

Values = dict[str, Any]
# Label, metric, horizon ("" for a single number), the paper's LAM and ALAM.
PROBES = (
    ("PSNR at k (dB)", "psnr_k", "", "26.74", "28.87"),
    ("PSNR at k, shuffled z", "psnr_k_shuffled", "", "", ""),
    ("PSNR at 5k, direct", "psnr_5k", "", "", ""),
    ("PSNR at 5k, cumulative", "psnr_cum_5k", "", "", ""),
    ("SSIM at k", "ssim", "1", "0.90", "0.91"),
    ("SSIM at 5k, cumulative", "ssim_cum", "5", "", ""),
    ("LPIPS at k", "lpips", "1", "0.08", "0.08"),
    ("LPIPS at 5k, cumulative", "lpips_cum", "5", "", ""),
    ("additivity error at 5k, relative", "add_rel", "5", "", ""),
    ("the same, mean-subtracted z", "add_centred", "5", "", ""),
    ("the same, raw", "add", "5", "", ""),
    ("reversal error at k, relative", "rev_rel", "1", "", ""),
    ("the same, mean-subtracted z", "rev_centred", "1", "", ""),
    ("the same, raw", "rev", "1", "", ""),
    ("reversal error at 5k, relative", "rev_rel", "5", "", ""),
    ("the same, mean-subtracted z", "rev_centred", "5", "", ""),
    ("the same, raw", "rev", "5", "", ""),
    ("mean norm of z", "latent_norm", "", "", ""),
    ("share of the energy of z in its mean", "constant_share", "", "", ""),
    ("effective dimensions of z", "effective_dims", "", "", ""),
    ("codebook perplexity", "codebook_perplexity", "", "", ""),
    ("dead codes", "dead_codes", "", "", ""),
    ("R^2 of actions from z, 10 labelled episodes a task", "action_r2", "10", "", ""),
    ("the same, without z", "action_r2_without_z", "10", "", ""),
    ("the same, from the true motion instead of z", "action_r2_motion", "10", "", ""),
)
RATIOS = (
    ("additivity at 5k", "add_5k", 46),
    ("reversal at 5k", "rev_5k", 25),
    ("reversal at k", "rev_k", 85),
)
EXACT = 1e5  # above this ratio the smaller error is rounding
NOTES = {
    "data_throughput": "Items (frames of all views) and triplets per second of this project's "
    "reader and of LeRobot's, on the same data set and cores. The target is a ratio of at least 3.",
    "pretraining_paper_size": "The preset `paper` at full size. The authors' released weights have "
    "about 199 M parameters and were trained on 128 H20 GPUs for 44 days.",
    "piper_encoders": "One policy per encoder, all trained with the same settings, on the latents "
    "of each encoder's first seed. The seeds are validation seeds, because this result decides "
    "which encoder is used.",
    "training_scale": "Largest relative difference between two loss curves: of two processes and "
    "of one, and of a run that was killed repeatedly and of an uninterrupted one.",
}


def transition_probes(values: Values, pictures: Path) -> str:
    """For each world: the metrics, LAM's errors over each method's, whether the targets are met,
    and the pictures that exist.
    """
    worlds = {
        name: world
        for name, world in values.items()
        if isinstance(world, dict) and "copy_psnr_k" in world
    }
    parts = [
        "Relative errors are divided by the mean norm of z at that horizon. Mean-subtracted: the "
        "mean over the clips was subtracted from each kind of latent first. "
        f"k = {values.get('gap', 5)} frames; training triplets span up to "
        f"{values.get('trained_horizon', '?')} k. ± is the standard deviation over seeds. The "
        "paper's errors are raw, on other data and with a larger model."
    ]
    for name, world in worlds.items():
        order = sorted(world, key=place)
        methods = {
            method: world[method]
            for method in order
            if isinstance(world.get(method), dict) and "add_rel" in world[method]
        }
        heads = [
            f"copying the source: {world['copy_psnr_k']:.2f} dB at k",
            *_heads(methods),
            "paper: LAM",
            "paper: ALAM",
        ]
        rows = [
            [title, *(_cell(part, metric, t) for part in methods.values()), lam, alam]
            for title, metric, t, lam, alam in PROBES
        ]
        parts += [
            f"### {name}",
            table(heads, rows),
            *_ratios(world),
            *_targets(world),
            *_pictures(name, pictures),
        ]
    sheets = {
        path.stem.removeprefix("transfer_"): path.name
        for path in sorted(pictures.glob("transfer_*.webp"))
    }
    if sheets:
        links = ", ".join(f"[{label(method)}](figures/{file})" for method, file in sheets.items())
        parts.append(
            "Transitions inferred in one domain and decoded in another (as in the paper's Figures "
            f"6 and 7): {links}"
        )
    return "\n\n".join(parts)


def transition_ablation(values: Values, pictures: Path) -> str:
    """The rows of Table 4 that were measured, means over the worlds."""
    rows = {
        method: values[row]
        for row, method in ABLATION_ROWS.items()
        if isinstance(values.get(row), dict)
    }
    worlds = ", ".join(values.get("worlds", {})) or "the worlds"
    paper = {method.key: method.paper for method in TRANSITION_MODELS}
    body = [
        [title, *(_cell(part, metric, t) for part in rows.values())]
        for title, metric, t, _, _ in PROBES
    ]
    body.append(
        [
            "paper: MetaWorld success with these latents (%)",
            *(f"{paper[method]:.1f}" for method in rows),
        ]
    )
    return f"Means over {worlds}, then over seeds.\n\n{table(['metric', *_heads(rows)], body)}"


def _ratios(world: Values) -> list[str]:
    """A table of LAM's errors over each other method's."""
    methods = {
        method: ratios
        for method, ratios in {"alam": world, **world.get("ratios_of_others", {})}.items()
        if "ratio" in ratios
    }
    rows = []
    for title, key, paper in RATIOS:
        for kind, lam in (("ratio", "LAM"), ("ratio_centred", "mean-subtracted LAM")):
            cells = [_ratio(ratios.get(kind, {}).get(key)) for ratios in methods.values()]
            rows.append([f"{title}, {lam} over", *cells, str(paper) if kind == "ratio" else ""])
    heads = ["ratio of relative errors", *map(label, methods), "paper: ALAM"]
    return [table(heads, rows)] if methods else []


def _targets(world: Values) -> list[str]:
    """A table of the targets of stage 1 for the soft model (ALAM), and whether they are met."""
    lam, alam, ratio = (world.get(name) for name in ("lam", "alam", "ratio"))
    if not lam or not alam or not ratio:
        return []
    checks: list[tuple[str, float | None, float]] = [
        (f"LAM / ALAM, {title}", ratio[key], least) for title, key, least in RATIOS
    ]
    checks += [
        ("PSNR at k, ALAM - LAM (dB)", alam["psnr_k"] - lam["psnr_k"], 0),
        ("cumulative PSNR at 5k, ALAM - LAM (dB)", alam["psnr_cum_5k"] - lam["psnr_cum_5k"], 1),
        ("effective dimensions, ALAM - LAM", alam["effective_dims"] - lam["effective_dims"], 0),
        ("PSNR at k lost by shuffling z (dB)", alam["psnr_k"] - alam["psnr_k_shuffled"], 1.5),
    ]
    rows = [
        [
            title,
            _number(value),
            f"{least:g}",
            "" if value is None else "yes" if value >= least else "**no**",
        ]
        for title, value, least in checks
    ]
    return [table(["target", "measured", "at least", "met"], rows)]


def _pictures(world: str, pictures: Path) -> list[str]:
    plots = {kind: f"transition_{kind}_{world}.png" for kind in ("algebra", "reconstruction")}
    shown = [
        f"![{kind} in {world}](figures/{file})"
        for kind, file in plots.items()
        if (pictures / file).is_file()
    ]
    sheets = sorted(pictures.glob(f"reconstruction_{world}_*.webp"))
    links = ", ".join(
        f"[{path.stem.removeprefix(f'reconstruction_{world}_')}](figures/{path.name})"
        for path in sheets
    )
    return [*shown, *([f"Decoded frames: {links}"] if links else [])]


def _cell(part: Values, metric: str, t: str) -> str:
    """A metric of a method at horizon ``t``, with its standard deviation."""
    value, deviation = part.get(metric), part.get(f"{metric}_std")
    if t:
        value, deviation = (
            by_horizon.get(t) if isinstance(by_horizon, dict) else None
            for by_horizon in (value, deviation)
        )
    return (
        "not measured"
        if value is None
        else _number(value) + ("" if deviation is None else f" ± {deviation:.2g}")
    )


def _heads(methods: Values) -> list[str]:
    counts = {method: len(part.get("seeds", [])) for method, part in methods.items()}
    return [
        f"{label(method)} ({count} seed{'s' * (count != 1)})" for method, count in counts.items()
    ]


def _ratio(value: float | None) -> str:
    return "exact" if value is None or value > EXACT else _number(value)


def _number(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.4g}"


TABLES = {"transition_probes": transition_probes, "transition_ablation": transition_ablation}
