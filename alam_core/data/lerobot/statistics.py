"""Statistics as LeRobot stores them: min, max, mean, std, count and five quantiles per feature.

As in LeRobot, a quantile over several episodes is the mean of the episodes' quantiles, weighted by
their lengths. T: frames, D: width of a vector feature, H, W: image height and width.
"""

from typing import Any

import numpy as np

QUANTILES = (0.01, 0.10, 0.50, 0.90, 0.99)
IMAGES_SAMPLED = 100  # per episode
PIXELS_SAMPLED = 150  # along each side of an image

Stats = dict[str, np.ndarray]  # name of the statistic -> values


def vector_stats(values: np.ndarray) -> Stats:
    """Statistics over time of values (T, D) or (T,). Each is float64 (D,), or (1,) for scalars;
    count is int64 (1,).
    """
    columns = values.reshape(len(values), -1).astype(np.float64)
    stats = {
        "min": columns.min(0),
        "max": columns.max(0),
        "mean": columns.mean(0),
        "std": columns.std(0),
    }
    stats["count"] = np.array([len(values)])
    for q, row in zip(QUANTILES, np.quantile(columns, QUANTILES, axis=0), strict=True):
        stats[f"q{round(q * 100):02d}"] = row
    return stats


def image_stats(images: np.ndarray) -> Stats:
    """Statistics per colour channel of images uint8 (T, H, W, 3), scaled to the range 0 to 1. Each
    is float64 (3, 1, 1). At most IMAGES_SAMPLED evenly spaced images are used.
    """
    chosen = np.linspace(0, len(images) - 1, min(len(images), IMAGES_SAMPLED)).round().astype(int)
    step = max(1, max(images.shape[1:3]) // PIXELS_SAMPLED)
    sample = images[chosen, ::step, ::step].reshape(-1, 3)
    levels = np.arange(256) / 255
    colours = []
    for colour in range(3):
        counts = np.bincount(sample[:, colour], minlength=256)
        share = counts / counts.sum()
        mean = (share * levels).sum()
        below = np.cumsum(share)
        present = levels[counts > 0]
        row = {
            "min": present[0],
            "max": present[-1],
            "mean": mean,
            "std": np.sqrt((share * (levels - mean) ** 2).sum()),
        }
        row.update({f"q{round(q * 100):02d}": levels[np.searchsorted(below, q)] for q in QUANTILES})
        colours.append(row)
    stats: Stats = {
        name: np.array([row[name] for row in colours]).reshape(3, 1, 1) for name in colours[0]
    }
    return {**stats, "count": np.array([len(chosen)])}


def merge_stats(first: Stats, second: Stats) -> Stats:
    """Statistics of the union of two sets of frames; all are exact except the quantiles."""
    n_first, n_second = first["count"].item(), second["count"].item()
    share = n_second / (n_first + n_second)
    merged = {name: first[name] + share * (second[name] - first[name]) for name in first}
    variance = (
        (1 - share) * first["std"] ** 2
        + share * second["std"] ** 2
        + share * (1 - share) * (second["mean"] - first["mean"]) ** 2
    )
    merged["std"] = np.sqrt(variance)
    merged["min"], merged["max"] = (
        np.minimum(first["min"], second["min"]),
        np.maximum(first["max"], second["max"]),
    )
    merged["count"] = np.array([n_first + n_second])
    return merged


def to_json(stats: dict[str, Stats]) -> dict[str, Any]:
    """Feature -> statistics as the plain values of meta/stats.json."""
    return {
        feature: {name: values.tolist() for name, values in rows.items()}
        for feature, rows in stats.items()
    }


def from_json(stats: dict[str, Any]) -> dict[str, Stats]:
    """The inverse of ``to_json``."""
    return {
        feature: {name: np.array(values) for name, values in rows.items()}
        for feature, rows in stats.items()
    }
