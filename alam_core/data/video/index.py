"""An index of video files: their length, rate and faults, read once and cached beside them."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import av
from rich.progress import Progress

from alam_core.data.video.reader import open_video, video_rate
from alam_core.errors import UserError
from alam_core.files import replacing_file

SHOW_PROGRESS_FROM = 2000  # files
THREADS = 8  # files opened at the same time: most of the time is spent waiting for the disk
CACHE = ".cache/videos.json"


@dataclass
class VideoFacts:
    """Properties of a video file, found without decoding it.

    frames: number of readable frames. seconds: their duration. fps: the file's own rate. fault:
    what is wrong with the file, "" if nothing is.
    """

    frames: int = 0
    seconds: float = 0.0
    fps: float = 0.0
    fault: str = ""


def inspect_video(path: str | Path) -> VideoFacts:
    """Inspect one file. If the file is missing, cut short or not a video, no error is raised; the
    result has a ``fault``.
    """
    path = Path(path)
    try:
        container, stream = open_video(path)
        fps = video_rate(stream, path)
    except UserError as error:
        return VideoFacts(fault=str(error))
    try:
        tick = float(stream.time_base)
        entries = stream.index_entries
        # mp4 and similar formats list every frame.
        if stream.frames and len(entries) == stream.frames:
            expected, size = stream.frames, path.stat().st_size
            last = entries[len(entries) - 1]
            whole = last.pos + last.size <= size
            frames = (
                expected
                if whole
                else sum(
                    1 for _ in takewhile(lambda entry: entry.pos + entry.size <= size, entries)
                )
            )
            seconds = (stream.duration or 0) * tick or frames / fps
        else:
            packets = [
                (packet.pts, packet.duration or 0)
                for packet in container.demux(stream)
                if packet.pts is not None and packet.size
            ]
            start = (stream.start_time or 0) * tick
            frames = expected = len(packets)
            seconds = max((pts + duration for pts, duration in packets), default=0) * tick - start
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
    if not frames:
        return VideoFacts(fps=fps, fault=f"video '{path}' holds no frame; restore the file")
    fault = (
        f"video '{path}' is cut short: {frames} of {expected} frames are there; restore the file"
        if frames < expected
        else ""
    )
    return VideoFacts(frames, seconds, fps, fault)


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
        for _, values in content.values():
            VideoFacts(**values)
        return dict(content)
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _write_cache(path: Path, content: dict[str, tuple[str, dict[str, Any]]]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing_file(path) as temporary:
            temporary.write_text(json.dumps(content))
    except OSError:
        pass  # in a folder that cannot be written, the files are inspected each time
