"""Small video files for tests: frame t of a file has brightness 20 + 4 t and the file's colour."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

CODECS = {
    ".mp4": "libx264",
    ".mkv": "libx264",
    ".mov": "libx264",
    ".webm": "libvpx",
    ".avi": "mpeg4",
    ".ts": "libx264",
}


def picture(t: int, colour: int = 0, size: tuple[int, int] = (32, 48)) -> np.ndarray:
    """Frame t: uint8 RGB (H, W, 3)."""
    image = np.full((*size, 3), 20 + 4 * t, np.uint8)
    image[:, : size[1] // 2, colour % 3] //= 2
    image[size[0] // 2 :, : size[1] // 2, (colour + 1) % 3] //= 2
    return image


def write_video(
    path: Path,
    frames: int,
    colour: int = 0,
    fps: int = 10,
    times: Sequence[int] | None = None,
    b_frames: int = 0,
    key_every: int = 6,
    pix_fmt: str = "yuv420p",
    prepare: Callable[[Any], None] = lambda stream: None,
) -> None:
    """A video of ``frames`` frames, shown at ``times`` (in 1/fps s) or one after another.

    prepare: is called with the stream, to set its display metadata.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        codec = CODECS[path.suffix] if pix_fmt.startswith("yuv") else "ffv1"
        options = {"g": str(key_every), "bf": str(b_frames), "threads": "1"} | (
            {"crf": "5"} if codec == "libx264" else {"b": "4M", "qmin": "1"}
        )
        stream = container.add_stream(codec, rate=fps, options=options)
        stream.height, stream.width, stream.pix_fmt = 32, 48, pix_fmt
        prepare(stream)
        stream.codec_context.time_base = Fraction(1, fps)
        for t in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(t, colour), format="rgb24")
            frame.pts, frame.time_base = (times[t] if times is not None else t), Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def numbers(images: np.ndarray) -> list[int]:
    """The frame numbers of images: uint8 (N, H, W, 3) -> N numbers."""
    return np.round((images[:, :, -8:].astype(float).mean((1, 2, 3)) - 20) / 4).astype(int).tolist()
