"""Images and numbers with a known result of conversion, for the tests of the converters, and the
check of that result.
"""

from pathlib import Path
from typing import Any

import numpy as np

from alam_core.data.lerobot import LeRobotDataset
from alam_training.commands.convert import ConvertConfig, ConvertSummary, convert

LENGTHS = (7, 3, 5)


def picture(episode: int, step: int, height: int = 48, width: int = 64) -> np.ndarray:
    """uint8 (height, width, 3), different from its mirror images, its rotations, and the images of
    other steps and episodes.
    """
    rows, columns = np.mgrid[:height, :width]
    image = np.stack(
        [columns * 255 // width, rows * 255 // height, np.full_like(rows, 40 + 50 * episode)],
        axis=-1,
    ).astype(np.uint8)
    image[4:14, 4 + 4 * step : 14 + 4 * step] = (255, 0, 0)
    return image


def pictures(episode: int, steps: int, height: int = 48, width: int = 64) -> np.ndarray:
    return np.stack([picture(episode, step, height, width) for step in range(steps)])


def numbers(episode: int, steps: int, width: int) -> np.ndarray:
    """float32 (steps, width), every one different."""
    return (100 * episode + np.arange(steps)[:, None] + np.arange(width)[None] / 16).astype(
        np.float32
    )


def run(
    source: str, folder: Path, output: Path, **options: Any
) -> tuple[LeRobotDataset, ConvertSummary]:
    """Convert, and open the resulting data set."""
    summary = convert(
        ConvertConfig(source=source, input=str(folder), output=str(output), **options)
    )  # type: ignore[arg-type]
    dataset = LeRobotDataset(output)
    assert dataset.num_episodes == summary.episodes and dataset.num_frames == summary.frames
    return dataset, summary


def check_frames(dataset: LeRobotDataset, e: int, view: str, expected: np.ndarray) -> None:
    """Check that the frames of an episode are ``expected``, up to the loss of video coding."""
    assert dataset.episode_length(e) == len(expected)
    read = dataset.frames(e, view, range(len(expected)))
    assert read.shape == expected.shape
    for t, (frame, wanted) in enumerate(zip(read, expected, strict=True)):
        error = np.abs(frame.astype(float) - wanted).mean()
        assert error < 4, f"frame {t} of '{view}' is off by {error:.1f}"
