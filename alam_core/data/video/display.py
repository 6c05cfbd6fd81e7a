"""How the frames of a video file are to be shown: turned, mirrored or stretched, as the file says.
FFmpeg's decoders leave that to the program that shows the frames.

H, W: height and width of the frames as they are stored.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from av.sidedata.sidedata import Type
from av.video.reformatter import ColorTrc

from alam_core.errors import UserError

HDR = {ColorTrc.SMPTE2084: "PQ", ColorTrc.ARIB_STD_B67: "HLG"}


@dataclass(frozen=True)
class Display:
    """What is done to a frame before it is shown.

    width, height: its size with square pixels, None if that is the stored one. turned: then rows
    and columns are exchanged. flipped: then these axes are reversed (0: upside down).
    """

    width: int | None = None
    height: int | None = None
    turned: bool = False
    flipped: tuple[int, ...] = ()

    def arrange(self, image: np.ndarray) -> np.ndarray:
        """An image of ``width`` and ``height`` as it is shown: (H, W, 3) or (W, H, 3)."""
        if self.turned:
            image = image.swapaxes(0, 1)
        return np.flip(image, self.flipped) if self.flipped else image


def display_of(frame: Any, stream: Any, path: Path) -> Display:
    """How the frames of ``stream`` are shown; ``frame`` is any of them. Raises UserError if they
    cannot be shown as colour images upright: an odd angle, high dynamic range, or deep grey levels.
    """
    form = frame.format
    if form.name.startswith("gray") and form.components[0].bits > 8:
        raise UserError(
            f"video '{path}' has {form.components[0].bits}-bit grey levels ({form.name}), such as "
            "depth, not colours: leave it out (--views names the views to use)"
        )
    if frame.color_trc in HDR:
        raise UserError(
            f"video '{path}' has a high dynamic range ({HDR[frame.color_trc]}), which would look "
            "pale: convert it to SDR (BT.709)"
        )
    width, height = _square_pixels(frame, stream)
    matrix = frame.side_data.get(Type.DISPLAYMATRIX)
    if matrix is None:
        return Display(width, height)
    # A point (x, y) is shown at (a x + c y, b x + d y).
    (a, b), (c, d) = np.frombuffer(bytes(matrix), np.int32).reshape(3, 3)[:2, :2].tolist()
    if a and d and not (b or c):
        return Display(width, height, False, _negative(d, a))
    if b and c and not (a or d):
        return Display(width, height, True, _negative(b, c))
    raise UserError(
        f"video '{path}' is to be shown turned by {frame.rotation} degrees, which is no multiple "
        "of 90: turn it with ffmpeg -i IN OUT, which applies the angle"
    )


def _square_pixels(frame: Any, stream: Any) -> tuple[int | None, int | None]:
    """Width and height at which the pixels are square: the longer side of a pixel is kept."""
    shape = float(stream.sample_aspect_ratio or 1)
    width, height = round(frame.width * max(shape, 1)), round(frame.height / min(shape, 1))
    return (None, None) if (width, height) == (frame.width, frame.height) else (width, height)


def _negative(rows: int, columns: int) -> tuple[int, ...]:
    return tuple(axis for axis, sign in enumerate((rows, columns)) if sign < 0)
