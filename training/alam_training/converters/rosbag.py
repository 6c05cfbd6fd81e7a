"""ROS 2 bags: each rosbag2 folder (sqlite3 or MCAP), or single .mcap or .db3 file, is one episode.
ROS is not needed.

The rows have a fixed rate and cover the time in which all topics and joints have messages. Each row
takes, of each topic and joint, the message with the nearest stamp: the header's, or the time of
recording if there is none or if the user asks for it. The action is the joint state one row later,
or the nearest message of a command topic. The instruction can be stored in the bag: ``ros2 bag
record --custom-data task="put the cup on the tray" ...``.

T: rows of an episode, H, W: image height and width.
"""

import functools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from alam_core.data.images import resize_images
from alam_core.data.raw_images import decode_raw_image
from alam_core.errors import UserError, listing, one_line
from alam_core.files import instead_of
from alam_core.robots.joint_states import JointStates
from alam_core.types import VIEWS
from alam_training.converters.rosbag_clocks import (
    MAX_GAP,
    RECORDED,
    SECOND,
    TimedMessages,
    after,
    check_clock,
    compare_clocks,
)
from alam_training.converters.source import (
    BrokenEpisode,
    ForeignDataset,
    Recording,
    Request,
    SourceEpisode,
    chosen,
    decode_image,
    need,
    stack_images,
)

FPS = 10.0
TOPIC = "/{}/color/image_raw"  # of each view
STATE = ["/joint_states"]
MAX_REPEAT = 1.5  # rows for each image
IMAGES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
NUMBERS = (
    "sensor_msgs/msg/JointState",
    "std_msgs/msg/Float64MultiArray",
    "std_msgs/msg/Float32MultiArray",
)


@functools.cache
def _library() -> tuple[Any, Any]:
    """The class that reads a bag, and the types of ROS Jazzy's messages."""
    reader = need("rosbags.rosbag2", "rosbags", "ROS bags").Reader
    types = need("rosbags.typesys", "rosbags", "ROS bags")
    return reader, types.get_typestore(types.Stores.ROS2_JAZZY)


def open_rosbag(request: Request) -> ForeignDataset:
    """Every bag at or below ``request.folder``. Raises UserError if there are none."""
    _library()  # or an error that says how to get it
    folder = request.folder
    bags = _bags(folder)
    if not bags:
        raise UserError(
            f"'{folder}' holds no rosbag2 folder (with metadata.yaml) and no .mcap or .db3 file; "
            + (
                "ROS 1 bags are converted first: rosbags-convert --src IN.bag --dst OUT"
                if any(folder.rglob("*.bag")) or folder.suffix == ".bag"
                else "'ros2 bag reindex' may help"
            )
        )
    recordings = [
        Recording(
            path.relative_to(folder).as_posix() if path != folder else path.name,
            partial(_read, path, request),
        )
        for path in bags
    ]
    return ForeignDataset("ros2", request.fps or FPS, len(recordings), recordings)


def _bags(folder: Path) -> list[Path]:
    if folder.is_file() or (folder / "metadata.yaml").is_file():
        return [folder]
    whole = sorted(path.parent for path in folder.rglob("metadata.yaml"))
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix in (".mcap", ".db3") and path.parent not in whole
    )
    return sorted(whole + files)


def _read(path: Path, request: Request) -> SourceEpisode:
    reader, store = _library()
    try:
        with reader(path) as bag:
            return _Bag(bag, store, request).episode()
    except BrokenEpisode:
        raise
    except UserError as error:
        raise BrokenEpisode(str(error)) from None
    except (
        Exception
    ) as error:  # damage raises errors of struct, sqlite, yaml, zstd, the reader, ...
        raise BrokenEpisode(f"cannot be read: {unreadable(path, error)}") from None


def unreadable(path: Path, error: Exception) -> str:
    """Why a bag cannot be read, and what may help."""
    files = [path, *sorted(path.glob("*.mcap")), *sorted(path.glob("*.db3"))]
    for file in files:
        if file.is_file() and (instead := instead_of(file, "a bag")):
            return f"{file.name} is {instead}"
    return f"{one_line(error)}; 'ros2 bag reindex' may help, if the recording was cut off"


@dataclass
class _Column:
    """A number over time. what: its joint and topic, or its topic, for messages."""

    name: str
    topic: str
    what: str
    stamps: np.ndarray  # (n,)
    values: np.ndarray  # (n,)


class _Bag:
    """An open bag. Times are integers in ns."""

    def __init__(self, bag: Any, store: Any, request: Request) -> None:
        self.bag = bag
        self.store = store
        self.request = request
        self.types = {name: info.msgtype for name, info in bag.topics.items()}

    def episode(self) -> SourceEpisode:
        request = self.request
        views = request.views or {
            view: TOPIC.format(view) for view in VIEWS if TOPIC.format(view) in self.types
        }
        if not views:
            hint = f"its image topics are {self._of(IMAGES)}; name them with --views.NAME TOPIC"
            raise BrokenEpisode(f"has no {TOPIC.format('<view>')}; {hint}")
        state_topics, action_topics = chosen(request.state, STATE), chosen(request.action, [])
        numeric = state_topics + action_topics
        self._check(list(views.values()), IMAGES)
        self._check(numeric, NUMBERS)
        topics = self._read(dict.fromkeys([*views.values(), *numeric]), set(numeric))
        for name, read in topics.items():
            check_clock(name, read)
        states, actions = (
            [column for name in names for column in _columns(name, topics[name])]
            for names in (state_topics, action_topics)
        )
        series = {topic: topics[topic].stamps for topic in views.values()}
        series |= {column.what: column.stamps for column in states + actions}
        rows = _rows(series, request.fps or FPS)
        compare_clocks(topics)
        state, state_names = _vectors(states, rows)  # (T, S)
        if request.action:
            action, action_names = _vectors(actions, rows)
        else:  # the joint state one row later; the last row has none and is dropped
            state, action, action_names = state[:-1], state[1:], state_names
        picks = {
            topic: _nearest(series[topic], rows, topic)[: len(state)] for topic in views.values()
        }
        frames = self._frames(picks)
        for topic in picks:
            _check_rate(topic, series[topic], request.fps or FPS)
        images = {view: stack_images(frames[topic], 0, topic) for view, topic in views.items()}
        custom = getattr(self.bag.storage.metadata, "custom", None) or {}
        return SourceEpisode(
            images, state, action, state_names, action_names, str(custom.get("task", "")).strip()
        )

    def _of(self, types: tuple[str, ...]) -> str:
        return listing(sorted(name for name, kind in self.types.items() if kind in types))

    def _check(self, topics: list[str], types: tuple[str, ...]) -> None:
        for topic in topics:
            if topic not in self.types:
                raise BrokenEpisode(f"has no topic {topic}; suitable topics: {self._of(types)}")
            if self.types[topic] not in types:
                raise BrokenEpisode(
                    f"{topic} is of type {self.types[topic]}; suitable topics: {self._of(types)}"
                )

    def _messages(self, topics: Iterable[str]) -> Iterator[tuple[str, int, Any]]:
        """Topic, time of recording and content of every message of the topics."""
        connections = [
            connection for connection in self.bag.connections if connection.topic in topics
        ]
        for connection, recorded, data in self.bag.messages(connections):
            yield connection.topic, recorded, self.store.deserialize_cdr(data, connection.msgtype)

    def _read(self, names: Iterable[str], kept: set[str]) -> dict[str, TimedMessages]:
        """The given topics, those in ``kept`` with their messages."""
        stamps: dict[str, list[tuple[int, int]]] = {name: [] for name in names}
        messages: dict[str, list[Any]] = {name: [] for name in names}
        believed = self.request.stamps == "header"
        for name, recorded, message in self._messages(names):
            stamp = message.header.stamp if believed and hasattr(message, "header") else None
            ns = stamp.sec * SECOND + stamp.nanosec if stamp else 0
            stamps[name].append((ns or recorded, recorded))
            if name in kept:
                messages[name].append(message)
        silent = sorted(name for name, times in stamps.items() if not times)
        if silent:
            raise BrokenEpisode(f"{silent[0]} has no messages")
        return {
            name: TimedMessages(np.array(times)[:, 0], np.array(times)[:, 1], messages[name])
            for name, times in stamps.items()
        }

    def _frames(self, picks: dict[str, np.ndarray]) -> dict[str, list[np.ndarray]]:
        """The picked messages of image topics as uint8 RGB (H, W, 3), resized as requested."""
        wanted = {topic: set(numbers.tolist()) for topic, numbers in picks.items()}
        found: dict[str, dict[int, np.ndarray]] = {topic: {} for topic in picks}
        seen = dict.fromkeys(picks, 0)
        size = self.request.image_size
        for topic, _, message in self._messages(picks):
            if seen[topic] in wanted[topic]:
                image = (
                    decode_raw_image(message, topic, self.request.channels)
                    if hasattr(message, "encoding")
                    else decode_image(message.data.tobytes(), f"{topic} ('{message.format}')")
                )
                found[topic][seen[topic]] = resize_images(image, size) if size else image
            seen[topic] += 1
        return {
            topic: [found[topic][number] for number in numbers.tolist()]
            for topic, numbers in picks.items()
        }


def _check_rate(name: str, stamps: np.ndarray, fps: float) -> None:
    """Raises BrokenEpisode if a topic has clearly fewer images than there are rows."""
    usual = float(np.median(np.diff(np.sort(stamps)))) / SECOND if len(stamps) > 1 else 0.0
    if usual * fps > MAX_REPEAT:
        raise BrokenEpisode(
            f"{name} has {1 / usual:.3g} images per second, but there are {fps:g} rows: images "
            f"would repeat while the arm moves; give --fps {1 / usual:.2g}, or record faster"
        )


def _columns(name: str, topic: TimedMessages) -> list[_Column]:
    """The columns of a numeric topic: its joints, or numbers without names."""
    first = topic.messages[0]
    prefix = name.strip("/").replace("/", "_") + "_"
    if hasattr(first, "position") and any(len(message.name) for message in topic.messages):
        return _joint_columns(name, topic, [message.name for message in topic.messages])
    if hasattr(first, "position"):
        names = [[f"{prefix}{i}" for i in range(len(m.position))] for m in topic.messages]
        if len({len(row) for row in names}) > 1:
            raise BrokenEpisode(f"{name} is empty or changes its width")
        return _joint_columns(name, topic, names)
    rows = [message.data for message in topic.messages]
    if len({len(row) for row in rows}) > 1 or not len(rows[0]):
        raise BrokenEpisode(f"{name} is empty or changes its width")
    return [
        _Column(f"{prefix}{i}", name, name, topic.stamps, values)
        for i, values in enumerate(np.array(rows, np.float64).T)
    ]


def _joint_columns(name: str, topic: TimedMessages, joints: list[list[str]]) -> list[_Column]:
    """The joints of a topic, merged over its messages. joints: names in each message."""
    merged = JointStates(keep_all=True)
    stamps, recorded = topic.stamps.tolist(), topic.recorded.tolist()
    order = np.argsort(topic.stamps, kind="stable").tolist()
    for i in order:
        try:
            merged.add(stamps[i], recorded[i], joints[i], topic.messages[i].position.tolist())
        except ValueError as error:
            raise BrokenEpisode(
                f"{name}, {after(stamps[i] - stamps[order[0]])} its first message: {error}"
            ) from None
        if found := merged.contradiction:
            raise BrokenEpisode(
                f"{found.joint} on {name} {found.reason} ({after(stamps[i] - stamps[order[0]])} "
                "its first message): two nodes publish it; record each on a topic of its own"
            )
    # In the order of the largest message, whichever message came first.
    full = {
        tuple(group)
        for group, message in zip(joints, topic.messages, strict=True)
        if len(message.position)
    }
    names = list(dict.fromkeys(sum(sorted(full, key=lambda group: (-len(group), group)), ())))
    if not names:
        raise BrokenEpisode(f"{name} is empty: its messages have no positions")
    for joint in names:
        if joint not in merged.joints:
            raise BrokenEpisode(f"{joint} on {name} never has a finite position")
    ends = {joint: merged.joints[joint].stamps[-1] for joint in names}
    first, last = min(ends, key=lambda joint: ends[joint]), max(ends.values())
    if ends[first] < last - MAX_GAP * SECOND:
        raise BrokenEpisode(
            f"{name} changes its joints: {first} ends {after(ends[first] - stamps[order[0]])} the "
            f"topic's first message, {(last - ends[first]) / SECOND:.1f} s before others; its "
            f"joints are {', '.join(names)}"
        )
    return [
        _Column(
            joint,
            name,
            f"{joint} on {name}",
            np.array(merged.joints[joint].stamps),
            np.array(merged.joints[joint].positions),
        )
        for joint in names
    ]


def _vectors(columns: list[_Column], rows: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """The values nearest to the rows, float32 (T, n), and a name per column: the joint's, with the
    topic's name before it if several topics have the joint.
    """
    count = Counter(column.name for column in columns)
    names = [
        column.topic.strip("/").replace("/", "_") + "_" + column.name
        if count[column.name] > 1
        else column.name
        for column in columns
    ]
    parts = [column.values[_nearest(column.stamps, rows, column.what)] for column in columns]
    return np.array(parts, np.float32).reshape(len(columns), len(rows)).T, names


def _rows(stamps: Mapping[str, np.ndarray], fps: float) -> np.ndarray:
    """Times (T,) of the rows, from the start of the last topic to the end of the first one."""
    begin = max(int(times.min()) for times in stamps.values())
    end = min(int(times.max()) for times in stamps.values())
    count = (end - begin) * fps // SECOND + 1 if end >= begin else 0
    if count < 2:
        late = max(stamps, key=lambda what: stamps[what].min())
        raise BrokenEpisode(
            f"its topics overlap by less than two rows ({late} begins last); "
            f"do its stamps come from another clock? {RECORDED}"
        )
    return begin + np.round(np.arange(count) * SECOND / fps).astype(np.int64)


def _nearest(times: np.ndarray, rows: np.ndarray, topic: str) -> np.ndarray:
    """Index of the message nearest to each row, (T,). Raises BrokenEpisode if a row has no message
    within MAX_GAP.
    """
    order = np.argsort(times, kind="stable")
    ordered = times[order]
    after = np.searchsorted(ordered, rows).clip(1, max(1, len(times) - 1))
    after = np.minimum(after, len(times) - 1)
    before = np.maximum(after - 1, 0)
    picks = np.where(rows - ordered[before] <= ordered[after] - rows, before, after)
    gap = np.abs(ordered[picks] - rows)
    if gap.max() > MAX_GAP * SECOND:
        at = (rows[gap.argmax()] - rows[0]) / SECOND
        raise BrokenEpisode(f"{topic} has no message within {MAX_GAP} s of {at:.1f} s")
    return order[picks]
