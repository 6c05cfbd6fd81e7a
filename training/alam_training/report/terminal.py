"""The table of probes that training/probe.py prints."""

from rich.box import SIMPLE_HEAD
from rich.table import Table

from alam_training.stage1.summary import Metrics, over_seeds, ratios, with_ends

# Label, metric, horizon in units of k ("" for a single number).
ROWS = (
    ("PSNR k", "psnr_k", ""),
    ("PSNR k, shuffled z", "psnr_k_shuffled", ""),
    ("PSNR 5k", "psnr_5k", ""),
    ("PSNR 5k, cumulative", "psnr_cum_5k", ""),
    ("SSIM k", "ssim", "1"),
    ("SSIM 5k, cumulative", "ssim_cum", "5"),
    ("LPIPS k", "lpips", "1"),
    ("LPIPS 5k, cumulative", "lpips_cum", "5"),
    ("additivity 5k, relative", "add_rel", "5"),
    ("additivity 5k, centred z", "add_centred", "5"),
    ("additivity 5k, raw", "add", "5"),
    ("reversal k, relative", "rev_rel", "1"),
    ("reversal k, centred z", "rev_centred", "1"),
    ("reversal k, raw", "rev", "1"),
    ("reversal 5k, relative", "rev_rel", "5"),
    ("reversal 5k, centred z", "rev_centred", "5"),
    ("reversal 5k, raw", "rev", "5"),
    ("latent norm", "latent_norm", ""),
    ("constant share", "constant_share", ""),
    ("effective dims", "effective_dims", ""),
    ("codebook perplexity", "codebook_perplexity", ""),
    ("dead codes", "dead_codes", ""),
)


def probe_table(world: str, methods: dict[str, dict[int, Metrics]]) -> Table:
    """Metrics of a world, one column per method: means over its seeds, whose number stands in
    brackets. Standard deviations are in the result file.
    """
    means = {
        name: over_seeds({seed: with_ends(metrics) for seed, metrics in seeds.items()})
        for name, seeds in methods.items()
    }
    table = Table(box=SIMPLE_HEAD, title=f"{world}, held-out set: means over (n) seeds")
    table.add_column("", no_wrap=True)
    for name, seeds in methods.items():
        table.add_column(f"{name} ({len(seeds)})", justify="right")
    for label, name, horizon in ROWS:
        values = [
            metrics[name][horizon] if horizon and metrics[name] else metrics[name]
            for metrics in means.values()
        ]
        table.add_row(label, *("-" if value is None else f"{value:.4g}" for value in values))
    copied = next(iter(next(iter(methods.values())).values()))["psnr_copy"]
    lines = [f"copying the source: PSNR {copied['1']:.2f} at k, {copied['5']:.2f} at 5k"]
    if {"lam", "alam"} <= means.keys():
        for label, centred in (("lam / alam", False), ("mean-subtracted lam / alam", True)):
            found = ratios(means["lam"], means["alam"], centred)
            values = [
                f"{name} {'-' if value is None else f'{value:.3g}'}"
                for name, value in found.items()
            ]
            lines.append(f"{label}: {', '.join(values)}")
    table.caption = "\n".join(lines)
    return table
