"""Small videos whose every frame is cheap to reach: H.264 with a key frame every other frame and no
B frames (docs/data.md says why).

Colour is stored at full resolution (yuv444p): at 96 pixels halving it, as usual, blurs small
coloured objects and costs 10 dB. Frame n of a file is shown at n / fps seconds. T, N: numbers of
frames; H, W: image height and width.
"""

import os
from collections import OrderedDict
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
from av.video.frame import PictureType
from av.video.reformatter import VideoReformatter

from alam_core.errors import UserError

CODEC = "libx264"
PIXEL_FORMAT = "yuv444p"
KEY_FRAME_EVERY = 2  # frames
ENTROPY_CODER = "vlc"  # of the same quality as "cabac": a few percent more bytes, decoded in two thirds of the time
QUALITY = 14  # constant rate factor: 0 lossless, 51 worst
PRESET = "veryfast"
OPEN_VIDEOS = 8  # files kept open
SEEK_BEYOND = 24  # frames to the next wanted one from which a jump is made where the file has no index of its key frames


class VideoWriter:
    """Encodes frames into one mp4 file; each call of ``add`` begins with a key frame. ``close``
    makes the file readable.
    """

    def __init__(
        self,
        path: str | Path,
        fps: float,
        height: int,
        width: int,
        quality: int = QUALITY,
        pixel_format: str = PIXEL_FORMAT,
    ) -> None:
        self.path = Path(path)
        self.num_frames = 0
        self.num_bytes = 0
        self._shape = (height, width, 3)
        self._container = av.open(str(path), "w", options={"movflags": "faststart"})
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
    """Reads chosen frames of a video file, of any codec and container FFmpeg knows.

    fps: the rate at which frames are numbered; frame n must then be shown at n / fps seconds.
    Without it the file's own rate and start count, and frame n is whatever is shown n / rate
    seconds after the first: a variable rate is evened out.

    Raises UserError where the file is missing or broken.
    """

    def __init__(self, path: str | Path, fps: float | None = None) -> None:
        self.path = Path(path)
        self._container, self._stream = open_video(self.path)
        self._exact = fps is not None
        self.fps = float(fps if fps is not None else video_rate(self._stream, self.path))
        self._tick = float(self._stream.time_base)  # seconds
        self._start = 0.0 if self._exact else (self._stream.start_time or 0) * self._tick
        self._stream.codec_context.thread_count = (
            1  # more threads cost time at the start, and small frames gain nothing
        )
        self._converter = VideoReformatter()
        self._frames: Any = iter(())
        self._last: Any = None  # the frame decoded last
        self._ahead: Any = None  # the frame after it, where that is decoded already

    def read(self, numbers: Sequence[int]) -> np.ndarray:
        """Frames by their number in the file, in the order asked for: uint8 RGB (N, H, W, 3). Each
        is decoded once, in one pass.
        """
        found: dict[int, np.ndarray] = {}
        for number in sorted(set(numbers)):
            try:
                frame = self._shown(number)
                # One thread, because starting the converter's own threads takes longer than
                # converting a frame.
                found[number] = self._converter.reformat(
                    frame, format="rgb24", threads=1
                ).to_ndarray()
            except (av.error.FFmpegError, ValueError) as error:
                self._last = None
                raise UserError(
                    f"video '{self.path}' is broken near frame {number} ({error}); restore the file"
                ) from None
        return np.stack([found[number] for number in numbers])

    def close(self) -> None:
        self._container.close()

    def _shown(self, number: int) -> Any:
        """The frame on show when ``number`` has just begun: which one that is does not depend on
        what was read before.
        """
        time = self._start + (number + 0.4) / self.fps
        tick = int(time / self._tick)
        if self._last is None or self._last.time > time or self._jump(tick):
            for back in (
                0.0,
                0.5,
                5.0,
                time,
            ):  # a key frame may be shown later than its place in the file says
                self._seek(max(tick - int(back / self._tick), 0))
                if self._last is not None and self._last.time <= time:
                    break
        while self._last is not None and self._last.time <= time:
            if time < self._last.time + self._duration(self._last) and self._fits(number):
                return self._last
            following = self._ahead if self._ahead is not None else self._decode()
            if following is None:
                break
            if following.time > time:  # a gap: the frame before it stays on show
                self._ahead = following
                if self._fits(number):
                    return self._last
                break
            self._last, self._ahead = following, None
        raise UserError(
            f"video '{self.path}' has no frame {number} (at {number / self.fps:.2f} s): it is cut short; restore the file"
        )

    def _fits(self, number: int) -> bool:
        return not self._exact or round((self._last.time - self._start) * self.fps) == number

    def _duration(self, frame: Any) -> float:
        """How long a frame is shown, in seconds, as far as the file says."""
        return frame.duration * self._tick if frame.duration else 0.999 / self.fps

    def _jump(self, tick: int) -> bool:
        """Whether a key frame lies between the last frame and ``tick``, so that decoding on would
        take longer than seeking.
        """
        entries = self._stream.index_entries
        place = entries.search_timestamp(tick) if len(entries) else -1
        if place < 0:
            return bool((tick - self._last.pts) * self._tick * self.fps > SEEK_BEYOND)
        return bool(entries[place].timestamp > self._last.pts)

    def _seek(self, tick: int) -> None:
        self._container.seek(tick, stream=self._stream)
        self._frames = self._container.decode(self._stream)
        self._last, self._ahead = self._decode(), None

    def _decode(self) -> Any:
        """The next whole frame, or None at the end."""
        return next(
            (frame for frame in self._frames if not frame.is_corrupt and frame.pts is not None),
            None,
        )


class OpenVideos:
    """Readers kept open, at most ``limit`` of them, each process having its own."""

    def __init__(self, limit: int = OPEN_VIDEOS) -> None:
        self.limit = limit
        self._readers: OrderedDict[Path, VideoReader] = OrderedDict()
        self._owner = os.getpid()

    def reader(self, path: Path, fps: float | None) -> VideoReader:
        """The reader of a file (see ``VideoReader``); the least recently used one is closed when
        there are too many.
        """
        if self._owner != os.getpid():  # a forked process must not share decoders with its parent
            self._readers, self._owner = OrderedDict(), os.getpid()
        if path not in self._readers:
            self._readers[path] = VideoReader(path, fps)
            if len(self._readers) > self.limit:
                self._readers.popitem(last=False)[1].close()
        self._readers.move_to_end(path)
        return self._readers[path]


def open_video(path: Path) -> tuple[Any, Any]:
    """Container and video stream of a file; packets that a cut has damaged are left out."""
    if not path.is_file():
        raise UserError(f"video '{path}' is missing; copy the data set again or collect it anew")
    try:
        container = av.open(str(path), options={"fflags": "discardcorrupt"})
        return container, container.streams.video[0]
    except (av.error.FFmpegError, IndexError) as error:
        raise UserError(
            f"video '{path}' cannot be opened ({error}): it is cut short or no video; restore the file"
        ) from None


def video_rate(stream: Any, path: Path) -> float:
    """Frames a second that a stream says to have."""
    rate = stream.average_rate or stream.guessed_rate
    if not rate:
        raise UserError(f"video '{path}' does not say its frame rate; convert it with ffmpeg")
    return float(rate)


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
