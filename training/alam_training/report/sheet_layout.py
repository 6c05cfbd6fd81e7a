"""The layout of a sheet: named blocks of named rows of pictures with captions, saved as one
WebP.
"""

import io
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from PIL import Image

LARGEST = 195_000  # bytes per picture


@dataclass
class Cell:
    """A picture on a sheet with a caption below it; without an image it stays empty."""

    image: np.ndarray | None = None
    caption: str = ""


def save_sheet(
    blocks: dict[str, dict[str, list[Cell]]],
    columns: list[str],
    title: str,
    path: Path,
    across: int = 3,
) -> Path:
    """Save named blocks of named rows of cells as a WebP of less than 200 kB, if a quality of at
    least 20 allows it; returns its path.

    columns: headings of the cells. across: blocks next to each other.
    """
    across = min(across, len(blocks))
    down = -(-len(blocks) // across)
    rows = max(map(len, blocks.values()))
    cell, gap, label, head, top = 0.9, 0.15, 1.15, 0.55, 0.35  # inches
    block_width, block_height = label + len(columns) * cell + 0.1, head + rows * (cell + gap) + 0.1
    width, height = across * block_width, top + down * block_height
    figure = plt.figure(figsize=(width, height))

    def text(
        x: float, y: float, words: str, size: float, align: str = "center", weight: str = "normal"
    ) -> None:
        """x from the left and y from the top, in inches."""
        figure.text(
            x / width, 1 - y / height, words, fontsize=size, ha=align, va="center", weight=weight
        )

    text(width / 2, 0.2, title, 11)
    for number, (name, block) in enumerate(blocks.items()):
        left, upper = (
            (number % across) * block_width + label,
            top + (number // across) * block_height,
        )
        text(left, upper + 0.15, name, 9, "left", weight="bold")
        for c, column in enumerate(columns):
            text(left + (c + 0.48) * cell, upper + 0.42, column, 8)
        for r, (row, cells) in enumerate(block.items()):
            y = upper + head + r * (cell + gap)
            text(left - 0.08, y + cell / 2, row.replace(", ", "\n"), 8, "right")
            for c, one in enumerate(cells):
                if one.image is not None:
                    side = 0.96 * cell
                    axis = figure.add_axes(
                        (
                            (left + c * cell) / width,
                            1 - (y + side) / height,
                            side / width,
                            side / height,
                        )
                    )
                    axis.imshow(one.image, interpolation="nearest")
                    axis.set_axis_off()
                    text(left + (c + 0.48) * cell, y + cell + 0.05, one.caption, 6.5)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    plt.close(figure)
    picture = Image.open(buffer).convert("RGB")
    for quality in (90, 75, 60, 40, 20):
        picture.save(path, quality=quality, method=6)
        if path.stat().st_size <= LARGEST:
            break
    return path
