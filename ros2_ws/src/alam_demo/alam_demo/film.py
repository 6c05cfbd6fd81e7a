"""The film of a demo: both camera views, and beside them each view's path through latent space.

A transition z says how a picture changed, and ALAM's transitions add up; so their running sum is a
path. It is drawn in the two directions in which an episode's path varies most: what the encoder saw
as a line, what the policy imagines next as dots.

T: frames of an episode, D: numbers in a latent transition, H: steps of a chunk.
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
INK, FAINT, SEEN, IMAGINED, GOOD = (
    (30, 32, 38),
    (205, 208, 214),
    (38, 98, 217),
    (240, 128, 32),
    (22, 140, 66),
)
PAPER = (250, 250, 252)


@dataclass
class Look:
    """One moment of an episode: its images, the transition that led to it, and what the policy
    imagined last.

    images: view -> uint8 (H_img, W, 3). seen: view -> (D,), absent where the encoder sent none.
    imagined: view -> (H, D), empty before the first chunk.
    """

    time: float  # s since the episode began
    images: dict[str, np.ndarray]
    seen: dict[str, np.ndarray] = field(default_factory=dict)
    imagined: dict[str, np.ndarray] = field(default_factory=dict)


def write_film(path: Path, episodes: list[tuple[str, bool, list[Look]]], fps: float) -> None:
    """Write an mp4 of several episodes (title, success, looks), each followed by a short pause on
    its last frame.
    """
    episodes = [episode for episode in episodes if episode[2]]
    if not episodes:
        return
    views = list(episodes[0][2][0].images)
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = HEADER + TILE, TILE * len(views) + PANEL
    with replacing_file(path) as temporary:
        writer = VideoWriter(
            temporary, fps, height, width, quality=23, pixel_format="yuv420p"
        )  # plays everywhere
        for title, success, looks in episodes:
            paths = {view: _Path(view, looks) for view in views}
            for i, look in enumerate(looks):
                over = i == len(looks) - 1
                frame = _frame(title, success if over else None, look, i, paths)
                for _ in range(round(fps) if over else 1):
                    writer.add(frame[None])
        writer.close()


class _Path:
    """The running sum of a view's transitions over an episode, flattened to two dimensions."""

    def __init__(self, view: str, looks: list[Look]) -> None:
        self.view = view
        width = next((look.seen[view].size for look in looks if view in look.seen), 0)
        steps = np.array([look.seen.get(view, np.zeros(width)) for look in looks])  # (T, D)
        self.points = np.cumsum(steps, axis=0) if width else np.zeros((len(looks), 2))
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


def _frame(
    title: str, success: bool | None, look: Look, index: int, paths: dict[str, _Path]
) -> np.ndarray:
    canvas = Image.new("RGB", (TILE * len(look.images) + PANEL, HEADER + TILE), PAPER)
    draw = ImageDraw.Draw(canvas)
    draw.text((12, 12), title, INK, font=ImageFont.load_default(18))
    label, colour = f"{look.time:4.1f} s", INK
    if success is not None:
        label, colour = (
            f"{label}   {'done' if success else 'failed'}",
            GOOD if success else IMAGINED,
        )
    font = ImageFont.load_default(18)
    draw.text((canvas.width - 12 - draw.textlength(label, font), 12), label, colour, font=font)
    for column, (view, image) in enumerate(look.images.items()):
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
    left = TILE * len(look.images)
    height = TILE // len(paths)
    for row, (view, path) in enumerate(paths.items()):
        box = (left, HEADER + row * height, left + PANEL, HEADER + (row + 1) * height)
        _plot(draw, box, path, index, look.imagined.get(view))
    return np.asarray(canvas)


def _plot(
    draw: ImageDraw.ImageDraw,
    box: tuple[int, int, int, int],
    path: _Path,
    index: int,
    imagined: np.ndarray | None,
) -> None:
    draw.rectangle((box[0] + 1, box[1] + 1, box[2] - 2, box[3] - 2), outline=FAINT)
    font = ImageFont.load_default(12)
    cursor = box[0] + 8.0
    for text, colour in (
        (f"{path.view.replace('_', ' ')}:", INK),
        ("seen", SEEN),
        ("imagined", IMAGINED),
        ("to come", (150, 153, 160)),
    ):
        draw.text((cursor, box[1] + 4), text, colour, font=font)
        cursor += draw.textlength(text, font) + 8
    whole = path.to_pixels(path.flat, box)
    draw.line(whole, FAINT, 1)
    draw.line(whole[: index + 1], SEEN, 2)
    if imagined is not None and imagined.size and imagined.shape[1] == path.basis.shape[1]:
        ahead = path.flat[index] + np.cumsum(imagined, axis=0) @ path.basis.T
        for x, y in path.to_pixels(ahead, box):
            if box[0] + 3 < x < box[2] - 3 and box[1] + 3 < y < box[3] - 3:
                draw.ellipse((x - 1.5, y - 1.5, x + 1.5, y + 1.5), fill=IMAGINED)
    x, y = whole[index]
    draw.ellipse((x - 4, y - 4, x + 4, y + 4), fill=SEEN)
