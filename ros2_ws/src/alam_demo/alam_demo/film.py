"""Draws the demo's video: both camera views, and next to them each view's path through latent
space.

A transition z describes how an image changed. ALAM's transitions add up, so their running sum is a
path. It is projected to its first two principal components. A line shows the transitions that the
encoder computed from frames, dots show those that the policy predicts next.

T: frames of an episode, D: size of a latent transition, H: steps of a chunk.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from alam_core.data.video import VideoWriter
from alam_core.files import replacing_file

TILE = 256  # pixels, a camera view
HEADER = 44
PANEL = 256  # pixels, width of the plots
INK, FAINT, OBSERVED, PREDICTED, GOOD = (
    (30, 32, 38),
    (205, 208, 214),
    (38, 98, 217),
    (240, 128, 32),
    (22, 140, 66),
)
PAPER = (250, 250, 252)


@dataclass
class FilmFrame:
    """One frame of the video: the camera images, the transition from the previous images to them,
    and the newest transitions predicted by the policy.

    images: view -> uint8 RGB (H_img, W, 3). observed: view -> (D,), without views for which the
    encoder published none. predicted: view -> (H, D), empty before the first chunk.
    """

    time: float  # s since the episode began
    images: dict[str, np.ndarray]
    observed: dict[str, np.ndarray] = field(default_factory=dict)
    predicted: dict[str, np.ndarray] = field(default_factory=dict)


def write_film(path: Path, episodes: list[tuple[str, bool, list[FilmFrame]]], fps: float) -> None:
    """Write an mp4 of several episodes (title, success, frames). Each episode ends with its last
    frame shown for 1 s. Episodes without frames are left out; without any, no file is written.
    """
    episodes = [episode for episode in episodes if episode[2]]
    if not episodes:
        return
    views = list(episodes[0][2][0].images)
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = HEADER + TILE, TILE * len(views) + PANEL
    with replacing_file(path) as temporary:
        # Every player can decode this pixel format.
        writer = VideoWriter(temporary, fps, height, width, quality=23, pixel_format="yuv420p")
        for title, success, frames in episodes:
            paths = {view: _LatentPath(view, frames) for view in views}
            for i, frame in enumerate(frames):
                last = i == len(frames) - 1
                picture = _draw(title, success if last else None, frame, i, paths)
                for _ in range(round(fps) if last else 1):
                    writer.add(picture[None])
        writer.close()


class _LatentPath:
    """The running sum of a view's transitions over an episode, projected to two dimensions.

    ``points``: the sum (T, D). ``basis``: the two directions (2, D). ``flat``: the projection (T,
    2).
    """

    def __init__(self, view: str, frames: list[FilmFrame]) -> None:
        self.view = view
        width = next((frame.observed[view].size for frame in frames if view in frame.observed), 0)
        steps = np.array([frame.observed.get(view, np.zeros(width)) for frame in frames])  # (T, D)
        self.points = np.cumsum(steps, axis=0) if width else np.zeros((len(frames), 2))
        centred = self.points - self.points.mean(0)
        basis = np.linalg.svd(centred, full_matrices=False)[2][:2] if width else np.eye(2)
        self.basis = np.vstack([basis, np.zeros((2 - len(basis), basis.shape[1]))])  # (2, D)
        self.flat = self.points @ self.basis.T  # (T, 2)
        low, high = self.flat.min(0), self.flat.max(0)
        self.middle = (low + high) / 2
        self.extent = np.maximum(high - low, 1e-6)

    def to_pixels(
        self, points: np.ndarray, box: tuple[int, int, int, int]
    ) -> list[tuple[float, float]]:
        left, top, right, bottom = box
        scale = min((right - left - 40) / self.extent[0], (bottom - top - 50) / self.extent[1])
        x, y = (left + right) / 2, (top + 18 + bottom) / 2
        return [(x + dx, y - dy) for dx, dy in (points - self.middle) * scale]


def _draw(
    title: str, success: bool | None, frame: FilmFrame, index: int, paths: dict[str, _LatentPath]
) -> np.ndarray:
    canvas = Image.new("RGB", (TILE * len(frame.images) + PANEL, HEADER + TILE), PAPER)
    draw = ImageDraw.Draw(canvas)
    draw.text((12, 12), title, INK, font=ImageFont.load_default(18))
    label, colour = f"{frame.time:4.1f} s", INK
    if success is not None:
        label, colour = (
            f"{label}   {'done' if success else 'failed'}",
            GOOD if success else PREDICTED,
        )
    font = ImageFont.load_default(18)
    draw.text((canvas.width - 12 - draw.textlength(label, font), 12), label, colour, font=font)
    for column, (view, image) in enumerate(frame.images.items()):
        canvas.paste(
            Image.fromarray(image).resize((TILE, TILE), Image.Resampling.BICUBIC),
            (column * TILE, HEADER),
        )
        draw.text(
            (column * TILE + 8, HEADER + 6),
            view.replace("_", " "),
            (255, 255, 255),
            font=ImageFont.load_default(13),
        )
    left = TILE * len(frame.images)
    height = TILE // len(paths)
    for row, (view, path) in enumerate(paths.items()):
        box = (left, HEADER + row * height, left + PANEL, HEADER + (row + 1) * height)
        _plot(draw, box, path, index, frame.predicted.get(view))
    return np.asarray(canvas)


def _plot(
    draw: ImageDraw.ImageDraw,
    box: tuple[int, int, int, int],
    path: _LatentPath,
    index: int,
    predicted: np.ndarray | None,
) -> None:
    draw.rectangle((box[0] + 1, box[1] + 1, box[2] - 2, box[3] - 2), outline=FAINT)
    font = ImageFont.load_default(12)
    cursor = box[0] + 8.0
    for text, colour in (
        (f"{path.view.replace('_', ' ')}:", INK),
        ("observed", OBSERVED),
        ("predicted", PREDICTED),
        ("later", (150, 153, 160)),
    ):
        draw.text((cursor, box[1] + 4), text, colour, font=font)
        cursor += draw.textlength(text, font) + 8
    points = path.to_pixels(path.flat, box)
    draw.line(points, FAINT, 1)
    draw.line(points[: index + 1], OBSERVED, 2)
    if predicted is not None and predicted.size and predicted.shape[1] == path.basis.shape[1]:
        ahead = path.flat[index] + np.cumsum(predicted, axis=0) @ path.basis.T
        for x, y in path.to_pixels(ahead, box):
            if box[0] + 3 < x < box[2] - 3 and box[1] + 3 < y < box[3] - 3:
                draw.ellipse((x - 1.5, y - 1.5, x + 1.5, y + 1.5), fill=PREDICTED)
    x, y = points[index]
    draw.ellipse((x - 4, y - 4, x + 4, y + 4), fill=OBSERVED)
