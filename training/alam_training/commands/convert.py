"""Turn data of other formats into a LeRobot data set: RLDS / Open X-Embodiment, CALVIN, LIBERO (and
robomimic), ROS 2 bags.

    python training/convert.py --source rlds --input bridge/0.1.0 --output data/bridge --fps 5 --image_size 224
    python training/convert.py --source calvin --input task_D_D/training --output data/calvin
    python training/convert.py --source libero --input libero_spatial --output data/libero_spatial
    python training/convert.py --source rosbag --input bags --output data/mine --task "put the cup on the tray"

Each format has a reader in training/converters; docs/convert.md says what it takes from where. A
recording that cannot be read is skipped, counted and named. The data set appears only when it is
whole, but for Ctrl-C, which keeps the episodes converted so far: ``--resume true`` goes on from
there. meta/convert.json keeps the settings, what was skipped and whether all was converted.
"""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from alam_core.config import parse_args
from alam_core.data.lerobot.reader import LeRobotDataset
from alam_core.data.lerobot.writer import LeRobotWriter
from alam_core.errors import UserError
from alam_core.files import write_json
from alam_training.converters.calvin import open_calvin
from alam_training.converters.episodes import BrokenEpisode, Episode, Request, Source
from alam_training.converters.libero import open_libero
from alam_training.converters.rlds import open_rlds
from alam_training.converters.rosbag import open_rosbag
from alam_training.episodes.interrupts import uninterrupted

RECORD = (
    "meta/convert.json"  # beside the data: settings, skipped recordings, whether all was converted
)
JUDGED = 20  # recordings from which on the share of broken ones may stop the run before its end
OPENERS: dict[str, Callable[[Request], Source]] = {
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
        views: our view name -> the source's, such as --views.third_person image --views.wrist
            wrist_image; empty for the usual ones.
        state: names in the source, or topics, that make the state; empty for the usual ones, [none]
            to do without.
        action: names that make the action; empty for the usual ones, in a bag the joint state one
            row later; [none] to do without.
        part: rlds: a split such as train (empty: all); calvin: language or play (empty: language
            where there are annotations).
        task: instruction of the episodes that bring none.
        instructions: JSON file of an object {recording's name: instruction}, which goes before the
            source's own.
        image_size: side of the square images in pixels; 0 keeps the source's size.
        fps: frames a second; 0 for the source's own; in a bag the rate of the rows, 10 by default.
        max_episodes: stop after so many episodes in all; 0 for no limit.
        max_broken: share of recordings, 0 to 1, that may be unreadable.
        resume: go on with a data set that an interrupted run has left.
    """

    source: Literal["rlds", "calvin", "libero", "rosbag"]
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
    max_episodes: int = 0
    max_broken: float = 0.1
    resume: bool = False

    def __post_init__(self) -> None:
        if (
            not 0 <= self.max_broken <= 1
            or self.fps < 0
            or self.max_episodes < 0
            or (self.image_size and self.image_size < 8)
        ):
            raise UserError(
                "max_broken must lie between 0 and 1, fps and max_episodes must not be negative, image_size be 0 or at least 8"
            )
        wrong = [view for view in self.views if not view or "." in view or "/" in view]
        if wrong:
            raise UserError(
                f"view name '{wrong[0]}' must be a plain word; give --views.third_person NAME_IN_THE_SOURCE"
            )


@dataclass
class Summary:
    """What ``convert`` did. Episodes, frames and those without instruction are of the whole data
    set.
    """

    episodes: int = 0
    frames: int = 0
    broken: dict[str, str] = field(
        default_factory=dict
    )  # name of the recording -> why it was skipped
    untold: int = 0  # episodes of this run without an instruction
    finished: bool = False
    seconds: float = 0.0


def convert(config: ConvertConfig, console: Console | None = None) -> Summary:
    """Convert as ``config`` says, with a progress bar on ``console``.

    Ctrl-C ends it early with ``finished`` False. Raises UserError where nothing can be read or
    written, or too much is broken.
    """
    console = console or Console()
    started = time.monotonic()
    root = Path(config.output)
    summary, done = _begin(config, root)
    instructions = _instructions(config.instructions)
    folder = Path(config.input)
    if not folder.exists():
        raise UserError(f"--input '{folder}' does not exist")
    source = OPENERS[config.source](
        Request(
            folder,
            config.views,
            config.state,
            config.action,
            config.part,
            config.image_size,
            config.fps,
        )
    )
    if source.note:
        console.print(f"note: {source.note}")
    writer: LeRobotWriter | None = None
    names: tuple[list[str], list[str]] | None = None  # of the columns, alike in all episodes
    seen = len(done)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
    )
    try:
        with Progress(*columns, console=console) as progress:
            total = min(filter(None, (source.count, config.max_episodes)), default=None)
            bar = progress.add_task(
                f"converting {config.source}", total=total, completed=summary.episodes, note=""
            )
            for name, read in _left(source, done):
                if config.max_episodes and summary.episodes >= config.max_episodes:
                    break
                seen += 1
                try:
                    episode = read()
                    episode.task = instructions.get(name) or episode.task or config.task
                    writer = writer or _writer(config, root, source, episode)
                    names = names or (episode.state_names, episode.action_names)
                    if names != (episode.state_names, episode.action_names):
                        raise BrokenEpisode(
                            f"its columns are {', '.join(episode.state_names)}, others than the first episode's"
                        )
                    with uninterrupted():
                        _add(writer, episode, name)
                        summary.episodes, summary.frames = writer.num_episodes, writer.num_frames
                        summary.untold += not episode.task
                except BrokenEpisode as error:
                    summary.broken[name] = str(error)
                    if seen >= JUDGED or len(summary.broken) > config.max_broken * JUDGED:
                        _judge(config, summary, seen)
                done_now = summary.episodes if config.max_episodes else seen
                progress.update(
                    bar,
                    completed=done_now,
                    note=f"{summary.frames} frames, {len(summary.broken)} skipped",
                )
        _judge(config, summary, seen)
        summary.finished = True
    except KeyboardInterrupt:
        if writer is None:
            raise
    except BaseException:
        if writer is not None:
            writer.abort()
        raise
    if not summary.episodes:
        if writer is not None:
            writer.abort()
        raise UserError(f"'{folder}' holds no episodes{_first(summary)}")
    with uninterrupted():  # without its record a data set cannot be resumed
        if writer is not None:
            writer.close()
        _write_record(config, root, summary)
    summary.seconds = time.monotonic() - started
    return summary


def _begin(config: ConvertConfig, root: Path) -> tuple[Summary, set[str]]:
    """What is there already, and the names of the recordings in it."""
    if not root.exists():
        return Summary(), set()
    if not config.resume:
        raise UserError(
            f"'{root}' exists already; add --resume true to go on with it, or choose another --output"
        )
    dataset = LeRobotDataset(root)
    try:
        before = json.loads((root / RECORD).read_text())["settings"]
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            f"'{root}/{RECORD}' is missing or broken: only data sets made by this script can be resumed"
        ) from None
    for name, value in _settings(config).items():
        if before.get(name) != value:
            raise UserError(
                f"'{root}' was converted with {name} = {before.get(name)!r}, not {value!r}; give the same or another --output"
            )
    return Summary(dataset.num_episodes, dataset.num_frames), set(dataset.extras["recording"])


def _settings(config: ConvertConfig) -> dict[str, Any]:
    """The part of the configuration that decides what the episodes look like."""
    free = ("input", "output", "max_episodes", "max_broken", "resume")
    return {name: value for name, value in asdict(config).items() if name not in free}


def _write_record(config: ConvertConfig, root: Path, summary: Summary) -> None:
    write_json(
        root / RECORD,
        {"settings": _settings(config), "finished": summary.finished, "skipped": summary.broken},
    )


def _instructions(path: str) -> dict[str, str]:
    if not path:
        return {}
    try:
        values = json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"--instructions '{path}' cannot be read ({error})") from None
    if not isinstance(values, dict) or not all(isinstance(value, str) for value in values.values()):
        raise UserError(
            f"--instructions '{path}' must hold an object of texts: {{recording's name: instruction}}"
        )
    return values


def _left(source: Source, done: set[str]) -> Iterator[tuple[str, Callable[[], Episode]]]:
    """Recordings that are not in the data set yet."""
    for recording in source.recordings:
        if recording.name not in done:
            yield recording.name, recording.read


def _writer(config: ConvertConfig, root: Path, source: Source, episode: Episode) -> LeRobotWriter:
    """A writer for episodes that look like this one."""
    views = {view: (images.shape[1], images.shape[2]) for view, images in episode.images.items()}
    return LeRobotWriter(
        root,
        source.fps,
        views,
        episode.state_names,
        episode.action_names,
        source.robot_type,
        append=root.exists(),
    )


def _add(writer: LeRobotWriter, episode: Episode, name: str) -> None:
    """Raises BrokenEpisode for an episode unlike the first one, or with numbers that are not
    finite.
    """
    try:
        writer.add_episode(
            episode.images, episode.state, episode.action, episode.task, {"recording": name}
        )
    except ValueError as error:
        raise BrokenEpisode(str(error)) from None


def _judge(config: ConvertConfig, summary: Summary, seen: int) -> None:
    """Raises UserError once more than the admitted share of the recordings seen is broken."""
    if len(summary.broken) > config.max_broken * seen:
        raise UserError(
            f"{len(summary.broken)} of {seen} recordings of '{config.input}' cannot be read, a larger share than "
            f"--max_broken {config.max_broken:g}{_first(summary)}; nothing is written"
        )


def _first(summary: Summary) -> str:
    """The first broken recording, for an error message."""
    return next((f"; the first: {name}: {reason}" for name, reason in summary.broken.items()), "")


def main() -> int:
    config = parse_args(ConvertConfig, "Turn data of other formats into a LeRobot data set.")
    summary = convert(config)
    for name, reason in summary.broken.items():
        print(f"skipped {name}: {reason}")
    if summary.untold:
        print(
            f"episodes without an instruction: {summary.untold}; --task or --instructions gives them one"
        )
    print(
        f"{config.output}: {summary.episodes} episodes, {summary.frames} frames, {len(summary.broken)} skipped, {summary.seconds:.0f} s"
    )
    if not summary.finished:
        print("interrupted: the episodes converted so far are kept; --resume true goes on")
    return 0 if summary.finished else 130
