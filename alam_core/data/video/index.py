"""What the video files of a folder hold, and which of them are broken: looked into once, remembered
beside them.
"""

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
THREADS = 8  # files opened at once: most of that is waiting for the disk
MEMORY = ".cache/videos.json"


@dataclass
class VideoFacts:
    """What a video file holds, found without decoding it.

    frames: how many can be read. seconds: how long they are shown. fps: the file's own rate. fault:
    what is wrong, "" for nothing.
    """

    frames: int = 0
    seconds: float = 0.0
    fps: float = 0.0
    fault: str = ""


def inspect_video(path: str | Path) -> VideoFacts:
    """Look into one file. A file that is missing, cut short or no video is no error here but has a
    ``fault``.
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
        if stream.frames and len(entries) == stream.frames:  # mp4 and its kin list every frame
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
            if (
                container.duration and len(container.streams) == 1
            ):  # else another stream may be the longer one
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
    """Facts of the files ``names``, relative to ``root``; only files that are new or have changed
    since the last time are opened.
    """
    memory = _remembered(root / MEMORY)
    stamps = [_stamp(root / name) for name in names]
    facts: list[VideoFacts | None] = [None] * len(names)
    for i, (name, stamp) in enumerate(zip(names, stamps, strict=True)):
        if name in memory and memory[name][0] == stamp:
            facts[i] = VideoFacts(**memory[name][1])
    new = [i for i, fact in enumerate(facts) if fact is None]
    with (
        ThreadPoolExecutor(THREADS) as pool,
        Progress(transient=True, disable=len(new) < SHOW_PROGRESS_FROM) as progress,
    ):
        task = progress.add_task(f"looking into the videos of {root.name}", total=len(new))
        for i, fact in zip(
            new, pool.map(lambda i: inspect_video(root / names[i]), new), strict=True
        ):
            facts[i] = fact
            if not fact.fault:
                memory[names[i]] = (stamps[i], asdict(fact))
            progress.advance(task)
    if new:
        _remember(root / MEMORY, memory)
    return [fact for fact in facts if fact is not None]


def _stamp(path: Path) -> str:
    """Changes with the file; empty where there is none."""
    try:
        stat = path.stat()
    except OSError:
        return ""
    return f"{stat.st_size} {stat.st_mtime_ns}"


def _remembered(path: Path) -> dict[str, tuple[str, dict[str, Any]]]:
    """File name -> its stamp and facts; nothing where there is no memory, which is only a shortcut."""
    try:
        content = json.loads(path.read_text())
        for _, values in content.values():
            VideoFacts(**values)
        return dict(content)
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _remember(path: Path, content: dict[str, tuple[str, dict[str, Any]]]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing_file(path) as temporary:
            temporary.write_text(json.dumps(content))
    except OSError:
        pass  # a folder that cannot be written is looked into again the next time
