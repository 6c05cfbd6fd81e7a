"""The table of probes that training/probe.py prints."""

from rich.box import SIMPLE_HEAD
from rich.table import Table

from alam_training.report.stage1 import PROBES
from alam_training.stage1.summary import Metrics, over_seeds, ratios, result_metrics


def probe_table(world: str, methods: dict[str, dict[int, Metrics]]) -> Table:
    """Metrics of a world, one column per method: means over its seeds, with their number in
    parentheses. Standard deviations are in the result file.
    """
    means = {
        name: over_seeds({seed: result_metrics(metrics) for seed, metrics in seeds.items()})
        for name, seeds in methods.items()
    }
    table = Table(box=SIMPLE_HEAD, title=f"{world}, held-out set: means over (n) seeds")
    table.add_column("", no_wrap=True)
    for name, seeds in methods.items():
        table.add_column(f"{name} ({len(seeds)})", justify="right")
    for label, name, horizon, *_ in PROBES:
        values = [
            metrics[name][horizon] if horizon and metrics.get(name) else metrics.get(name)
            for metrics in means.values()
        ]
        table.add_row(label, *("-" if value is None else f"{value:.4g}" for value in values))
    copied = next(iter(next(iter(methods.values())).values()))["psnr_copy"]
    lines = [f"copying the source: PSNR {copied['1']:.2f} at k, {copied['5']:.2f} at 5k"]
    if {"lam", "alam"} <= means.keys():
        for label, centred in (("lam / alam", False), ("mean-subtracted lam / alam", True)):
            found = ratios(means["lam"], means["alam"], centred)
            told = [
                f"{name} {'-' if value is None else f'{value:.3g}'}"
                for name, value in found.items()
            ]
            lines.append(f"{label}: {', '.join(told)}")
    table.caption = "\n".join(lines)
    return table
