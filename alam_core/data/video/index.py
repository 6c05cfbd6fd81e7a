"""An index of video files: their length, rate and faults, read once and cached beside them."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from itertools import takewhile
from pathlib import Path
from typing import Any

import av
import numpy as np
from rich.progress import Progress

from alam_core.data.video.display import display_of
from alam_core.data.video.reader import open_video, video_rate
from alam_core.errors import UserError
from alam_core.files import replacing_file

SHOW_PROGRESS_FROM = 2000  # files
THREADS = 8  # files opened at the same time: most of the time is spent waiting for the disk
CACHE = ".cache/videos.json"
EVEN = 0.1  # of the time between frames: containers round times, many to milliseconds


@dataclass
class VideoFacts:
    """Properties of a video file, found from its index and its first frame.

    frames: number of readable frames. seconds: their duration. fps: the file's own rate. start:
    when its first frame is shown, in seconds. even: whether the others follow at the rate ``fps``.
    fault: what is wrong with the file, "" if nothing is; without frames if none can be used.
    """

    frames: int = 0
    seconds: float = 0.0
    fps: float = 0.0
    start: float = 0.0
    even: bool = True
    fault: str = ""


def inspect_video(path: str | Path) -> VideoFacts:
    """Inspect one file. If the file is missing, cut short, not a video, or cannot be shown (see
    ``display_of``), no error is raised; the result has a ``fault``.
    """
    path = Path(path)
    try:
        _show_first(path)
        container, stream = open_video(path)
        fps = video_rate(stream, path)
    except UserError as error:
        return VideoFacts(fault=str(error))
    try:
        tick = float(stream.time_base)
        start = (stream.start_time or 0) * tick
        entries = stream.index_entries
        # mp4 and similar formats list every frame.
        if stream.frames and len(entries) == stream.frames:
            size = path.stat().st_size
            listed = [entry for entry in entries if not entry.is_discard]
            whole = list(takewhile(lambda entry: entry.pos + entry.size <= size, listed))
            times = [entry.timestamp for entry in whole]  # of decoding, but as even as those shown
            expected, seconds = len(listed), (stream.duration or 0) * tick or len(listed) / fps
        else:
            packets = _packets(container, stream)
            times = sorted(packets)
            expected = len(packets)
            seconds = max((t + packets[t] for t in times), default=0) * tick - start
            # The container's duration is that of its longest stream.
            if container.duration and len(container.streams) == 1:
                missing = container.duration / av.time_base - start - seconds
                expected += round(missing * fps) if missing * fps > 2 else 0
    except (av.error.FFmpegError, OSError) as error:
        return VideoFacts(
            fps=fps, fault=f"video '{path}' cannot be read ({error}); restore the file"
        )
    finally:
        container.close()
    if not times:
        return VideoFacts(fps=fps, fault=f"video '{path}' holds no frame; restore the file")
    frames = len(times)
    late = (np.array(times) - times[0]) * tick * fps - np.arange(frames)  # in frames
    fault = (
        f"video '{path}' is cut short: {frames} of {expected} frames are there; restore the file"
        if frames < expected
        else ""
    )
    return VideoFacts(frames, seconds, fps, start, bool(abs(late).max() < EVEN), fault)


def frame_times(path: Path, facts: VideoFacts) -> np.ndarray:
    """When each frame of a file is shown, in seconds: float64 (facts.frames,), ascending. A file
    whose frames are not even is read for it, without decoding. Raises UserError if it is broken.
    """
    if facts.even:
        return facts.start + np.arange(facts.frames) / facts.fps
    container, stream = open_video(path)
    try:
        return np.array(sorted(_packets(container, stream))) * float(stream.time_base)
    except (av.error.FFmpegError, OSError) as error:
        raise UserError(f"video '{path}' cannot be read ({error}); restore the file") from None
    finally:
        container.close()


def inspect_videos(root: Path, names: list[str]) -> list[VideoFacts]:
    """Facts of the files ``names``, which are relative to ``root``. Only files that are new or have
    changed since the last call are opened.
    """
    cached = _read_cache(root / CACHE)
    stamps = [_stamp(root / name) for name in names]
    facts: list[VideoFacts | None] = [None] * len(names)
    for i, (name, stamp) in enumerate(zip(names, stamps, strict=True)):
        if name in cached and cached[name][0] == stamp:
            facts[i] = VideoFacts(**cached[name][1])
    new = [i for i, fact in enumerate(facts) if fact is None]
    with (
        ThreadPoolExecutor(THREADS) as pool,
        Progress(transient=True, disable=len(new) < SHOW_PROGRESS_FROM) as progress,
    ):
        task = progress.add_task(f"inspecting the videos of {root.name}", total=len(new))
        for i, fact in zip(
            new, pool.map(lambda i: inspect_video(root / names[i]), new), strict=True
        ):
            facts[i] = fact
            if not fact.fault:
                cached[names[i]] = (stamps[i], asdict(fact))
            progress.advance(task)
    if new:
        _write_cache(root / CACHE, cached)
    return [fact for fact in facts if fact is not None]


def _show_first(path: Path) -> None:
    """Decode a file's first frame. Raises UserError if the file cannot be shown; says nothing if
    the frame is broken.
    """
    container, stream = open_video(path)
    try:
        display_of(next(container.decode(stream)), stream, path)
    except (av.error.FFmpegError, StopIteration):
        pass
    finally:
        container.close()


def _packets(container: Any, stream: Any) -> dict[int, int]:
    """Time -> duration of each frame that is shown, in the stream's ticks, without decoding."""
    return {
        packet.pts: packet.duration or 0
        for packet in container.demux(stream)
        if packet.pts is not None and packet.size and not packet.is_discard
    }


def _stamp(path: Path) -> str:
    """Size and modification time of a file; "" if there is no file."""
    try:
        stat = path.stat()
    except OSError:
        return ""
    return f"{stat.st_size} {stat.st_mtime_ns}"


def _read_cache(path: Path) -> dict[str, tuple[str, dict[str, Any]]]:
    """File name -> its stamp and facts; empty if the cache is missing or broken."""
    try:
        content = json.loads(path.read_text())
        known = {field.name for field in fields(VideoFacts)}
        return {name: entry for name, entry in content.items() if entry[1].keys() == known}
    except (OSError, ValueError, TypeError, AttributeError, LookupError):
        return {}


def _write_cache(path: Path, content: dict[str, tuple[str, dict[str, Any]]]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing_file(path) as temporary:
            temporary.write_text(json.dumps(content))
    except OSError:
        pass  # in a folder that cannot be written, the files are inspected each time
