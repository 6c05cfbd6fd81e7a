"""Writes small videos whose frames are cheap to read in random order: H.264 with a key frame every
other frame and no B frames (docs/data_sets.md gives the measurements).

Colour is stored at full resolution (yuv444p): in images of 96 pixels the usual half resolution
blurs small coloured objects and costs 10 dB (7 dB at equal file size). Frame n of a file is shown
at n / fps seconds. T: number of frames, H, W: image height and width.
"""

import contextlib
import io
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
from av.video.frame import PictureType

CODEC = "libx264"
PIXEL_FORMAT = "yuv444p"
KEY_FRAME_EVERY = 2  # frames
# CAVLC: the same quality as CABAC, a few percent more bytes, a third less decoding time
ENTROPY_CODER = "vlc"
QUALITY = 14  # constant rate factor: 0 is lossless, 51 the worst
PRESET = "veryfast"


class VideoWriter:
    """Encodes frames into one mp4 file; the first frame of each ``add`` is a key frame. The file is
    readable after ``close``.

    file: the open file at ``path``, if its writes go through an object of the caller's. ``add`` and
    ``close`` raise OSError.
    """

    def __init__(
        self,
        path: str | Path,
        fps: float,
        height: int,
        width: int,
        quality: int = QUALITY,
        pixel_format: str = PIXEL_FORMAT,
        file: io.RawIOBase | None = None,
    ) -> None:
        self.path = Path(path)
        self.num_frames = 0
        self.num_bytes = 0
        self._shape = (height, width, 3)
        self._file = file
        self._container = av.open(file or str(path), "w", options={"movflags": "faststart"})
        options = {
            "crf": str(quality),
            "preset": PRESET,
            "coder": ENTROPY_CODER,
            "g": str(KEY_FRAME_EVERY),
            "bf": "0",
        }
        options |= {"forced-idr": "1", "threads": "1"}
        stream = cast(
            av.VideoStream,
            self._container.add_stream(
                CODEC, rate=Fraction(fps).limit_denominator(100000), options=options
            ),
        )
        stream.height, stream.width, stream.pix_fmt = height, width, pixel_format
        self._stream = stream

    def add(self, images: np.ndarray) -> None:
        """Append frames: uint8 RGB (T, H, W, 3). Raises ValueError for another shape or dtype."""
        if images.dtype != np.uint8 or images.shape[1:] != self._shape:
            raise ValueError(
                f"{self.path}: frames must be uint8 (T, {', '.join(map(str, self._shape))}), "
                f"not {images.dtype} {images.shape}"
            )
        with self._errors_of_the_file():
            for i, image in enumerate(images):
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
                frame.pts = self.num_frames
                if i == 0:
                    frame.pict_type = PictureType.I
                self._mux(self._stream.encode(frame))
                self.num_frames += 1

    def close(self) -> None:
        """Finish the file."""
        with self._errors_of_the_file():
            self._mux(self._stream.encode())
            self._container.close()
        if self._file:
            self._file.close()

    def abort(self) -> None:
        """Close the file without finishing it."""
        with contextlib.suppress(OSError, av.FFmpegError):  # the disk may be full
            self._container.close()
        if self._file:
            self._file.close()

    @contextlib.contextmanager
    def _errors_of_the_file(self) -> Iterator[None]:
        """Raise the OSError of a file of the caller's instead of PyAV's error about it."""
        try:
            yield
        except av.FFmpegError as error:
            raise error.__cause__ if isinstance(error.__cause__, OSError) else error from None

    def _mux(self, packets: list[Any]) -> None:
        for packet in packets:
            self.num_bytes += packet.size
            self._container.mux(packet)


def video_info(path: str | Path, fps: float) -> dict[str, Any]:
    """The entry of a video file in LeRobot's info.json."""
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
