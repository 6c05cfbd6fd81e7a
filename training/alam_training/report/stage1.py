"""The tables of stage 1 in docs/results.md, beside the paper's figures (its Section 4.1 and Table
4).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alam_training.stage1.summary import METHODS

Values = dict[str, Any]
NAMES = {
    "lam": "LAM",
    "alam": "ALAM",
    "alam_weight3": "ALAM, weight 3",
    "full": "ALAM",
    "no_rev_add": "without both",
    "no_rev": "without L_rev",
    "no_add": "without L_add",
}
# Label, figure, horizon ("" for a number), the paper's LAM and ALAM.
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
    ("constant's share of the energy of z", "constant_share", "", "", ""),
    ("effective dimensions of z", "effective_dims", "", "", ""),
    ("codebook perplexity", "codebook_perplexity", "", "", ""),
    ("dead codes", "dead_codes", "", "", ""),
)
RATIOS = (
    ("additivity at 5k", "add_5k", 46),
    ("reversal at 5k", "rev_5k", 25),
    ("reversal at k", "rev_k", 85),
)
EXACT = 1e5  # a ratio above says that the lower error is rounding
PAPER_SUCCESS = {"lam": 55.4, "no_rev_add": 58.3, "no_rev": 63.6, "no_add": 67.2, "full": 78.0}
NOTES = {
    "data_throughput": "Items (triplets) a second of our reader and of LeRobot's, same data set, same cores; the target is a ratio of 3.",
    "pretraining_paper_size": "The preset `paper` at full size; the released weights hold about 199 M, trained on 128 H20 for 44 days.",
    "piper_encoders": "Policies trained alike on the latents of each encoder's first seed; seeds of validation, as it is a choice.",
    "training_scale": "Loss curves of two processes beside one, and of a run killed again and again beside an unbroken one.",
}


def transition_probes(values: Values, figures: Path) -> str:
    """One table a world, what LAM's errors are over each method's, whether the targets are met, and
    the pictures that are there.
    """
    worlds = {
        name: world
        for name, world in values.items()
        if isinstance(world, dict) and "copy_psnr_k" in world
    }
    parts = [
        "Relative errors are over the mean norm of z at that horizon; mean-subtracted: every kind of latent lost its mean over the clips. "
        f"k = {values.get('gap', 5)} frames; training triplets span up to {values.get('trained_horizon', '?')} k. "
        "± is the deviation over seeds. The paper's errors are raw, on other data and at another size."
    ]
    for name, world in worlds.items():
        order = dict.fromkeys((*METHODS, *world))
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
            [label, *(_cell(part, figure, t) for part in methods.values()), lam, alam]
            for label, figure, t, lam, alam in PROBES
        ]
        parts += [
            f"### {name}",
            table(heads, rows),
            *_ratios(world),
            *_targets(world),
            *_pictures(name, figures),
        ]
    sheets = {
        path.stem.removeprefix("transfer_"): path.name
        for path in sorted(figures.glob("transfer_*.webp"))
    }
    if sheets:
        links = ", ".join(
            f"[{NAMES.get(method, method)}](figures/{file})" for method, file in sheets.items()
        )
        parts.append(
            f"Transitions inferred in one domain and decoded in another (as the paper's Figures 6 and 7): {links}"
        )
    return "\n\n".join(parts)


def transition_ablation(values: Values, figures: Path) -> str:
    """The rows of Table 4 that are there, means over the worlds."""
    rows = {row: values[row] for row in PAPER_SUCCESS if isinstance(values.get(row), dict)}
    worlds = ", ".join(values.get("worlds", {}))
    body = [
        [label, *(_cell(part, figure, t) for part in rows.values())]
        for label, figure, t, _, _ in PROBES
    ]
    body.append(
        [
            "paper: MetaWorld success with these latents (%)",
            *(f"{PAPER_SUCCESS[row]:.1f}" for row in rows),
        ]
    )
    return f"Means over {worlds or 'the worlds'}, then over seeds.\n\n{table(['', *_heads(rows)], body)}"


def _ratios(world: Values) -> list[str]:
    """LAM's errors over each other method's."""
    found = {"alam": world, **world.get("ratios_of_others", {})}
    rows = []
    for label, key, paper in RATIOS:
        for kind, words in (("ratio", "LAM"), ("ratio_centred", "mean-subtracted LAM")):
            cells = [
                _ratio(ratios.get(kind, {}).get(key))
                for ratios in found.values()
                if "ratio" in ratios
            ]
            rows.append([f"{label}, {words} over", *cells, str(paper) if kind == "ratio" else ""])
    heads = [NAMES.get(method, method) for method, ratios in found.items() if "ratio" in ratios]
    return [table(["relative errors", *heads, "paper: ALAM"], rows)] if heads else []


def _targets(world: Values) -> list[str]:
    """What stage 1 was to show for the soft model."""
    lam, alam, ratio = (world.get(name) for name in ("lam", "alam", "ratio"))
    if not lam or not alam or not ratio:
        return []
    checks: list[tuple[str, float | None, float]] = [
        (f"LAM / ALAM, {label}", ratio[key], least) for label, key, least in RATIOS
    ]
    checks += [
        ("PSNR at k over LAM's (dB)", alam["psnr_k"] - lam["psnr_k"], 0),
        ("cumulative PSNR at 5k over LAM's (dB)", alam["psnr_cum_5k"] - lam["psnr_cum_5k"], 1),
        ("effective dimensions over LAM's", alam["effective_dims"] - lam["effective_dims"], 0),
        ("cost of a shuffled z at k (dB)", alam["psnr_k"] - alam["psnr_k_shuffled"], 1.5),
    ]
    rows = [
        [
            label,
            _number(value),
            f"{least:g}",
            "" if value is None else "yes" if value >= least else "**no**",
        ]
        for label, value, least in checks
    ]
    return [table(["ALAM", "measured", "at least", "met"], rows)]


def _pictures(world: str, figures: Path) -> list[str]:
    plots = {kind: f"transition_{kind}_{world}.png" for kind in ("algebra", "reconstruction")}
    shown = [
        f"![{kind} in {world}](figures/{file})"
        for kind, file in plots.items()
        if (figures / file).is_file()
    ]
    sheets = sorted(figures.glob(f"reconstruction_{world}_*.webp"))
    links = ", ".join(
        f"[{path.stem.removeprefix(f'reconstruction_{world}_')}](figures/{path.name})"
        for path in sheets
    )
    return [*shown, *([f"Decoded frames: {links}"] if links else [])]


def _cell(part: Values, figure: str, t: str) -> str:
    value, deviation = part.get(figure), part.get(f"{figure}_std")
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
        f"{NAMES.get(method, method)} ({count} seed{'s' * (count != 1)})"
        for method, count in counts.items()
    ]


def _ratio(value: float | None) -> str:
    return "exact" if value is None or value > EXACT else _number(value)


def _number(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.4g}"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


TABLES = {"transition_probes": transition_probes, "transition_ablation": transition_ablation}
