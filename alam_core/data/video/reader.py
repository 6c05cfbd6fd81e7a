"""Reads chosen frames of video files of any codec and container that FFmpeg supports.

N: number of frames, H, W: image height and width.
"""

import os
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from alam_core.data.video.display import Display, display_of
from alam_core.errors import UserError
from alam_core.files import instead_of

OPEN_VIDEOS = 8  # files kept open
# frames: in a file without a key-frame index, a longer jump forward seeks instead of decoding
SEEK_BEYOND = 24


class VideoReader:
    """Reads chosen frames of one video file, as they are to be shown (see ``Display``).

    fps: the rate that numbers the frames; frame n must be shown at n / fps seconds. Without it, the
    file's own mean rate and start time number the frames: frame n is the one displayed n / rate
    seconds after the first, so a variable rate becomes a constant one.

    Raises UserError if the file is missing or broken.
    """

    def __init__(self, path: str | Path, fps: float | None = None) -> None:
        self.path = Path(path)
        self._container, self._stream = open_video(self.path)
        self._exact = fps is not None
        self.fps = float(fps if fps is not None else video_rate(self._stream, self.path))
        self._tick = float(self._stream.time_base)  # seconds
        self._start = 0.0 if self._exact else (self._stream.start_time or 0) * self._tick
        self._display: Display | None = None  # known from the first frame on
        self._converter = VideoReformatter()
        self._frames: Any = iter(())
        self._last: Any = None  # the frame decoded last
        self._ahead: Any = None  # the frame after it, if it is decoded already

    def read(self, numbers: Sequence[float]) -> np.ndarray:
        """Frames by their number in the file, in the order of ``numbers``: uint8 RGB (N, H, W, 3).
        A number need not be whole, if the file's first frame is not shown at a multiple of 1 / fps.
        Each frame is decoded once, in one pass. Raises UserError if the file is broken or too
        short, or if its frames cannot be shown.
        """
        found: dict[float, np.ndarray] = {}
        for number in sorted(set(numbers)):
            try:
                frame = self._shown(number)
                if self._display is None:
                    self._display = display_of(frame, self._stream, self.path)
                # One thread, because starting the converter's own threads takes longer than
                # converting a frame.
                image = self._converter.reformat(
                    frame, self._display.width, self._display.height, "rgb24", threads=1
                ).to_ndarray()
                found[number] = self._display.arrange(image)
            except (av.error.FFmpegError, ValueError) as error:
                self._last = None
                raise UserError(
                    f"video '{self.path}' is broken near frame {number} ({error}); restore the file"
                ) from None
        if len(numbers) == 1:  # the usual case in training, without a copy
            return found[numbers[0]][None]
        return np.stack([found[number] for number in numbers])

    def close(self) -> None:
        self._container.close()

    def _shown(self, number: float) -> Any:
        """The frame that is displayed just after the time of frame ``number``; it does not depend
        on earlier reads. Raises UserError if the file has no such frame.
        """
        time = self._start + (number + 0.4) / self.fps
        tick = int(time / self._tick)
        if self._last is None or self._last.time > time or self._jump(tick):
            # A key frame may be shown later than its position in the file suggests.
            for back in (0.0, 0.5, 5.0, time):
                self._seek(max(tick - int(back / self._tick), 0))
                if self._last is not None and self._last.time <= time:
                    break
        while self._last is not None and self._last.time <= time:
            if time < self._last.time + self._duration(self._last) and self._fits(number):
                return self._last
            following = self._ahead if self._ahead is not None else self._decode()
            if following is None:
                if self._exact and self._fits(number):  # the file may end with a shorter frame
                    return self._last
                break
            if following.time > time:  # a gap: the previous frame stays on show
                self._ahead = following
                if self._fits(number):
                    return self._last
                break
            self._last, self._ahead = following, None
        place = f"frame {number:g} (at {number / self.fps:.2f} s)"
        if self._ahead is not None or (self._last is not None and self._last.time > time):
            raise UserError(
                f"video '{self.path}' shows no frame when {place} is due: it begins later or has "
                f"another rate than {self.fps:g} per second"
            )
        raise UserError(f"video '{self.path}' has no {place}: it is cut short; restore the file")

    def _fits(self, number: float) -> bool:
        return not self._exact or abs(self._last.time * self.fps - number) <= 0.5

    def _duration(self, frame: Any) -> float:
        """How long a frame is shown, in seconds; just under 1 / fps if the file does not say."""
        return frame.duration * self._tick if frame.duration else 0.999 / self.fps

    def _jump(self, tick: int) -> bool:
        """Whether a key frame lies between the last frame and ``tick``: seeking is then faster than
        decoding all frames in between.
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
    """A cache of at most ``limit`` open readers; each process has its own readers."""

    def __init__(self, limit: int = OPEN_VIDEOS) -> None:
        self.limit = limit
        self._readers: OrderedDict[str, VideoReader] = OrderedDict()  # by path; hashing is quick
        self._owner = os.getpid()

    def reader(self, path: str, fps: float | None) -> VideoReader:
        """The reader of a file (see ``VideoReader``). Opening one too many closes the least
        recently used.
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
    """Container and first video stream of a file; damaged packets are dropped. Raises UserError if
    the file is missing or not a video.
    """
    if not path.is_file():
        raise UserError(f"video '{path}' is missing; copy the data set again or collect it again")
    try:
        container = av.open(str(path), options={"fflags": "discardcorrupt"})
        stream = container.streams.video[0]
    except (av.error.FFmpegError, IndexError) as error:
        if instead := instead_of(path, "a video"):
            raise UserError(f"video '{path}' is {instead}") from None
        raise UserError(
            f"video '{path}' cannot be opened ({error}): it is cut short or not a video; "
            "restore the file"
        ) from None
    # More threads cost time at the start, and small frames gain nothing.
    stream.codec_context.thread_count = 1
    return container, stream


def video_rate(stream: Any, path: Path) -> float:
    """Mean frames per second of a stream, as stated in the file. Raises UserError if it is not
    stated.
    """
    rate = stream.average_rate or stream.guessed_rate
    if not rate:
        raise UserError(f"video '{path}' does not state its frame rate; convert it with ffmpeg")
    return float(rate)
