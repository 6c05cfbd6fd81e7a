"""Turn data of other formats into a LeRobot data set: RLDS / Open X-Embodiment, CALVIN, LIBERO (and
robomimic), ROS 2 bags.

Each format has a reader in alam_training/converters; docs/convert.md lists what each reads. A
recording that cannot be read is skipped, counted and named. The data set appears when the
conversion is finished. Ctrl-C keeps the episodes converted so far; ``--resume true`` continues
from there. meta/convert.json records the settings, the skipped recordings, and whether the
conversion is finished.
"""

import json
import sys
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from alam_core.config import parse_args
from alam_core.data.raw_images import ChannelOrder
from alam_core.errors import UserError
from alam_training.converters.calvin import open_calvin
from alam_training.converters.libero import open_libero
from alam_training.converters.rlds import open_rlds
from alam_training.converters.rosbag import open_rosbag
from alam_training.converters.source import (
    BrokenEpisode,
    Columns,
    ForeignDataset,
    Recording,
    Request,
    SourceEpisode,
    Stamps,
    unlike,
)
from alam_training.episodes.dataset_run import DatasetRun
from alam_training.episodes.workers import check_workers, workers
from alam_training.progress import episode_progress

INTRODUCTION = """Turn data of other formats into a LeRobot data set.

  python training/convert.py --source rlds --input bridge/0.1.0 --output data/bridge \\
      --fps 5 --image_size 224
      RLDS, the format of Open X-Embodiment
  python training/convert.py --source calvin --input task_D_D/training --output data/calvin
  python training/convert.py --source libero --input libero_spatial --output data/libero_spatial
      LIBERO and robomimic
  python training/convert.py --source rosbag --input bags --output data/mine \\
      --task "put the cup on the tray"
      ROS 2 bags
  python training/convert.py --help
      every option

docs/convert.md lists what each format's reader reads.
Ctrl-C keeps the converted episodes; --resume true continues from there."""

RECORD = (
    "meta/convert.json"  # in the data set: settings, skipped recordings, whether it is finished
)
JUDGED = 20  # episodes to read before the share of broken ones is checked
Format = Literal["rlds", "calvin", "libero", "rosbag"]
OPENERS: dict[Format, Callable[[Request], ForeignDataset]] = {
    "rlds": open_rlds,
    "calvin": open_calvin,
    "libero": open_libero,
    "rosbag": open_rosbag,
}


@dataclass
class ConvertConfig:
    """What to convert.

    Args:
        source: the format: rlds, calvin, libero or rosbag.
        input: folder (or file) of the data.
        output: folder of the LeRobot data set.
        views: view in the data set -> its name in the source, such as --views.third_person image
            --views.wrist wrist_image; empty: the format's default names.
        state: names (or topics) in the source, concatenated to the state; empty: the format's
            default names; [none]: no state.
        action: names (or topics) concatenated to the action; empty: the format's default names, or,
            for a bag, the joint state one row later; [none]: no action.
        part: what to read of the source. rlds: a split such as train (empty: all splits); calvin:
            language or play (empty: language if there are annotations).
        task: instruction of the episodes that have none.
        instructions: JSON file with an object {recording's name: instruction}, which overrides the
            source's instructions.
        image_size: side of the square images in pixels; 0 keeps the source's size.
        fps: frames per second; 0: the rate of the source, or, for a bag, 10 rows per second.
        stamps: times of a bag's messages: header, as stamped by their sources, or recording, as
            received by the recorder, for bags in which a clock was set or the clocks differ.
        channels: rgb or bgr, the order of a bag's images whose encoding, 8UC3 or 8UC4, does not
            state it; empty: such images are refused.
        max_episodes: stop when the data set has this number of episodes; 0: no limit.
        max_broken: share of episodes, 0 to 1, that may be unreadable.
        resume: continue the data set of an interrupted run; false refuses an existing one.
        workers: processes that read recordings; 0 reads them in this process.
        ray: address of a Ray cluster (host:port; auto: the running cluster of this host) whose
            machines run the workers; empty: this machine. docs/scale.md says how to start one.
    """

    source: Format
    input: str
    output: str
    views: dict[str, str] = field(default_factory=dict)
    state: list[str] = field(default_factory=list)
    action: list[str] = field(default_factory=list)
    part: str = ""
    task: str = ""
    instructions: str = ""
    image_size: int = 0
    fps: float = 0.0
    stamps: Stamps = "header"
    channels: ChannelOrder = ""
    max_episodes: int = 0
    max_broken: float = 0.1
    resume: bool = False
    workers: int = 0
    ray: str = ""

    def __post_init__(self) -> None:
        check_workers(self.workers, self.ray)
        if (
            not 0 <= self.max_broken <= 1
            or self.fps < 0
            or self.max_episodes < 0
            or (self.image_size and self.image_size < 8)
        ):
            raise UserError(
                "max_broken must lie between 0 and 1, fps and max_episodes must not be negative, "
                "image_size must be 0 or at least 8"
            )
        wrong = [view for view in self.views if not view or "." in view or "/" in view]
        if wrong:
            raise UserError(
                f"view name '{wrong[0]}' must be a plain word; "
                "give --views.third_person NAME_IN_THE_SOURCE"
            )


@dataclass
class ConvertSummary:
    """What ``convert`` did. ``episodes`` and ``frames`` count the whole data set, the rest counts
    this run.
    """

    episodes: int = 0
    frames: int = 0
    broken: dict[str, str] = field(default_factory=dict)  # name of the recording -> why skipped
    lost: int = 0  # episodes in the broken recordings
    without_instruction: int = 0  # episodes
    finished: bool = False
    seconds: float = 0.0


def convert(config: ConvertConfig, console: Console | None = None) -> ConvertSummary:
    """Convert as ``config`` says, with a progress bar on ``console``.

    Ctrl-C ends it early with ``finished`` False. Raises UserError if nothing can be read or
    written, or too many recordings are broken.
    """
    console = console or Console()
    started = time.monotonic()
    settings = _settings(config)
    broken: dict[str, str] = {}
    record = {"settings": settings, "finished": False, "skipped": broken}
    run = DatasetRun(config.output, RECORD, record)
    run.resume(config.resume, settings, "converted", "--output", "recording", key="settings")
    done = set(run.dataset.extras["recording"]) if run.dataset else set()
    instructions = _instructions(config.instructions)
    source = _open_source(config)
    if source.note:
        console.print(f"note: {source.note}")
    columns: Columns | None = None  # of the first episode of this run
    seen, lost = len(done), 0  # episodes
    with run, episode_progress(console) as progress:
        total = min(filter(None, (source.count, config.max_episodes)), default=None)
        bar = progress.add_task(
            f"converting {config.source}", total=total, completed=run.num_episodes, note=""
        )
        for recording, read in _reading(config, source, done):
            if config.max_episodes and run.num_episodes >= config.max_episodes:
                break
            seen += recording.episodes
            try:
                episode = read()
                episode.task = instructions.get(recording.name) or episode.task or config.task
                columns = columns or episode.columns
                _add(run, source, episode, recording.name, columns)
            except BrokenEpisode as error:
                broken[recording.name] = str(error)
                lost += recording.episodes
                if seen >= JUDGED or lost > config.max_broken * JUDGED:
                    _check_broken(config, broken, lost, seen)
            progress.update(
                bar,
                completed=run.num_episodes if config.max_episodes else seen,
                note=f"{run.num_frames} frames, {lost} skipped",
            )
        _check_broken(config, broken, lost, seen)
        if not run.num_episodes:
            raise UserError(f"'{config.input}' holds no episodes{_first(broken)}")
        record["finished"] = True
    return ConvertSummary(
        run.num_episodes,
        run.num_frames,
        broken,
        lost,
        run.without_instruction,
        not run.interrupted,
        time.monotonic() - started,
    )


def _settings(config: ConvertConfig) -> dict[str, Any]:
    """The settings that decide what the episodes look like."""
    free = ("input", "output", "max_episodes", "max_broken", "resume", "workers", "ray")
    return {name: value for name, value in asdict(config).items() if name not in free}


def _open_source(config: ConvertConfig) -> ForeignDataset:
    """Raises UserError if ``config.input`` does not exist or is not in the format."""
    folder = Path(config.input)
    if not folder.exists():
        raise UserError(f"--input '{folder}' does not exist")
    return OPENERS[config.source](
        Request(
            folder,
            config.views,
            config.state,
            config.action,
            config.part,
            config.image_size,
            config.fps,
            config.stamps,
            config.channels,
        )
    )


def _reading(
    config: ConvertConfig, source: ForeignDataset, done: Collection[str]
) -> Iterator[tuple[Recording, Callable[[], SourceEpisode]]]:
    """The recordings but those ``done``, in their order, each with what returns its episode."""
    wanted = (recording for recording in source.recordings if recording.name not in done)
    if not config.workers:
        yield from ((recording, recording.read) for recording in wanted)
        return
    with workers(config.workers, _nothing, ray=config.ray) as submit:
        running: deque[tuple[Recording, Future[SourceEpisode]]] = deque()
        for recording in wanted:
            running.append((recording, submit(_read, recording.read)))
            if len(running) > 2 * config.workers:
                first, future = running.popleft()
                yield first, future.result
        yield from ((recording, future.result) for recording, future in running)


def _nothing() -> None:
    """The state of a worker that reads recordings."""


def _read(state: None, read: Callable[[], SourceEpisode]) -> SourceEpisode:
    return read()


def _instructions(path: str) -> dict[str, str]:
    """Recording's name -> instruction, from a JSON file; empty without one."""
    if not path:
        return {}
    try:
        values = json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"--instructions '{path}' cannot be read ({error})") from None
    if not isinstance(values, dict) or not all(isinstance(value, str) for value in values.values()):
        raise UserError(
            f"--instructions '{path}' must hold an object of texts: "
            "{recording's name: instruction}"
        )
    return values


def _add(
    run: DatasetRun,
    source: ForeignDataset,
    episode: SourceEpisode,
    name: str,
    columns: Columns,
) -> None:
    """Raises BrokenEpisode for an episode unlike the first one, or with numbers that are not
    finite.
    """
    run.open(episode.images, source.fps, *columns, source.robot_type)
    if difference := unlike(episode.columns, columns):
        raise BrokenEpisode(difference)
    try:
        run.add(episode.images, episode.state, episode.action, episode.task, {"recording": name})
    except ValueError as error:
        raise BrokenEpisode(str(error)) from None


def _check_broken(config: ConvertConfig, broken: dict[str, str], lost: int, seen: int) -> None:
    """Raises UserError if more than ``config.max_broken`` of the episodes seen are lost."""
    if lost > config.max_broken * seen:
        raise UserError(
            f"{lost} of {seen} episodes of '{config.input}' cannot be read, "
            f"a larger share than --max_broken {config.max_broken:g}{_first(broken)}; "
            "nothing is written"
        )


def _first(broken: dict[str, str]) -> str:
    """The first broken recording, for an error message."""
    return next((f"; the first: {name}: {reason}" for name, reason in broken.items()), "")


def main() -> int:
    if len(sys.argv) == 1:
        print(INTRODUCTION)
        return 0
    config = parse_args(ConvertConfig, INTRODUCTION.splitlines()[0])
    summary = convert(config)
    for name, reason in summary.broken.items():
        print(f"skipped {name}: {reason}")
    if summary.without_instruction:
        print(
            f"episodes without an instruction: {summary.without_instruction}; "
            "--task or --instructions gives them one"
        )
    print(
        f"{config.output}: {summary.episodes} episodes, {summary.frames} frames, "
        f"{summary.lost} skipped, {summary.seconds:.0f} s"
    )
    if not summary.finished:
        print("interrupted: the episodes converted so far are kept; --resume true continues")
    return 0 if summary.finished else 130
