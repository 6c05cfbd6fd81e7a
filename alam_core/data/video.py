"""Small videos whose every frame is cheap to reach: H.264 with a short distance between key frames and no B frames.

Colour is stored at full resolution (yuv444p): at 96 pixels halving it, as usual, blurs small coloured objects and costs 10 dB.
Frame n of a file is shown at n / fps seconds. T, N: numbers of frames; H, W: image height and width.
"""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
from av.video.frame import PictureType

from alam_core.errors import UserError

CODEC = "libx264"
PIXEL_FORMAT = "yuv444p"
KEY_FRAME_EVERY = 8  # frames
QUALITY = 14  # constant rate factor: 0 lossless, 51 worst
PRESET = "veryfast"
SEEK_BEYOND = 24  # frames to the next wanted one from which a jump to a key frame is cheaper than decoding on


class VideoWriter:
    """Encodes frames into one mp4 file; each call of ``add`` begins with a key frame. ``close`` makes the file readable."""

    def __init__(
        self, path: str | Path, fps: float, height: int, width: int, quality: int = QUALITY, pixel_format: str = PIXEL_FORMAT
    ) -> None:
        self.path = Path(path)
        self.num_frames = 0
        self.num_bytes = 0
        self._shape = (height, width, 3)
        self._container = av.open(str(path), "w", options={"movflags": "faststart"})
        options = {"crf": str(quality), "preset": PRESET, "g": str(KEY_FRAME_EVERY), "bf": "0", "forced-idr": "1", "threads": "1"}
        stream = cast(av.VideoStream, self._container.add_stream(CODEC, rate=Fraction(fps).limit_denominator(100000), options=options))
        stream.height, stream.width, stream.pix_fmt = height, width, pixel_format
        self._stream = stream

    def add(self, images: np.ndarray) -> None:
        """Append frames: uint8 RGB (T, H, W, 3). Raises ValueError for another shape or dtype."""
        if images.dtype != np.uint8 or images.shape[1:] != self._shape:
            raise ValueError(
                f"{self.path}: frames must be uint8 (T, {', '.join(map(str, self._shape))}), not {images.dtype} {images.shape}"
            )
        for i, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame.pts = self.num_frames
            if i == 0:
                frame.pict_type = PictureType.I
            self._mux(self._stream.encode(frame))
            self.num_frames += 1

    def close(self) -> None:
        self._mux(self._stream.encode())
        self._container.close()

    def abort(self) -> None:
        """Let go of the file without finishing it."""
        self._container.close()

    def _mux(self, packets: list[Any]) -> None:
        for packet in packets:
            self.num_bytes += packet.size
            self._container.mux(packet)


class VideoReader:
    """Reads chosen frames of a video file, of any codec FFmpeg knows. Raises UserError where the file is missing or broken."""

    def __init__(self, path: str | Path, fps: float) -> None:
        self.path = Path(path)
        self.fps = fps
        if not self.path.is_file():
            raise UserError(f"video '{path}' is missing; copy the data set again or collect it anew")
        try:
            self._container = av.open(str(path))
            self._stream: Any = self._container.streams.video[0]
        except (av.error.FFmpegError, IndexError) as error:
            raise UserError(f"video '{path}' cannot be opened ({error}): it is cut short or no video; restore the file") from None
        self._stream.codec_context.thread_count = 1  # more threads cost time at the start, and small frames gain nothing
        self._frames: Any = None
        self._next = 0  # number of the frame that decoding would give next, as far as known

    def read(self, numbers: Sequence[int]) -> np.ndarray:
        """Frames by their number in the file, in the order asked for: uint8 RGB (N, H, W, 3)."""
        wanted = sorted(set(numbers))
        found: dict[int, np.ndarray] = {}
        try:
            for number in wanted:
                if number not in found:
                    self._find(number, found, set(wanted))
        except av.error.FFmpegError as error:
            raise UserError(f"video '{self.path}' is broken near frame {number} ({error}); restore the file") from None
        return np.stack([found[number] for number in numbers])

    def close(self) -> None:
        self._container.close()

    def _find(self, number: int, found: dict[int, np.ndarray], wanted: set[int]) -> None:
        """Decode up to frame ``number``, keeping the wanted frames met on the way."""
        if self._frames is None or not self._next <= number < self._next + SEEK_BEYOND:
            time = number / self.fps - 0.25 / self.fps
            self._container.seek(max(0, int(time / self._stream.time_base)), stream=self._stream)
            self._frames = self._container.decode(self._stream)
        for frame in self._frames:
            current = round(frame.time * self.fps)
            self._next = current + 1
            if current in wanted:
                found[current] = frame.to_ndarray(format="rgb24")
            if current == number:
                return
            if current > number:
                break
        self._frames = None
        raise UserError(f"video '{self.path}' has no frame {number} (at {number / self.fps:.2f} s): it is cut short; restore the file")


def video_info(path: str | Path, fps: float) -> dict[str, Any]:
    """What LeRobot's info.json says of a video file."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return {
            "video.height": stream.height,
            "video.width": stream.width,
            "video.codec": stream.codec.canonical_name,
            "video.pix_fmt": stream.pix_fmt,
            "video.is_depth_map": False,
            "video.fps": int(fps) if float(fps).is_integer() else fps,
            "video.channels": 3,
            "has_audio": False,
        }
