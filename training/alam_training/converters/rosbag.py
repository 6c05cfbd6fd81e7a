"""ROS 2 bags: each rosbag2 folder (sqlite3 or MCAP), or single .mcap or .db3 file, is one episode.
ROS is not needed.

The rows have a fixed rate and cover the time in which all topics have messages. Each row takes, of
each topic, the message with the nearest stamp: the header's, or the time of recording if there is
none. The action is the joint state one row later, or the nearest message of a command topic. The
instruction can be stored in the bag: ``ros2 bag record --custom-data task="put the cup on the tray"
...``.

T: rows of an episode, H, W: image height and width.
"""

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from alam_core.data.images import resize_images
from alam_core.errors import UserError
from alam_core.types import VIEWS
from alam_training.converters.source import (
    BrokenEpisode,
    ForeignDataset,
    Recording,
    Request,
    SourceEpisode,
    chosen,
    decode_image,
    listing,
    need,
    stack_images,
)

FPS = 10.0
TOPIC = "/{}/color/image_raw"  # of each view
STATE = ["/joint_states"]
MAX_GAP = 0.5  # s from a row to the nearest message of a topic; a longer gap breaks the episode
SECOND = 1_000_000_000  # ns
IMAGES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
NUMBERS = (
    "sensor_msgs/msg/JointState",
    "std_msgs/msg/Float64MultiArray",
    "std_msgs/msg/Float32MultiArray",
)
CHANNELS = {
    "rgb8": [0, 1, 2],
    "bgr8": [2, 1, 0],
    "rgba8": [0, 1, 2],
    "bgra8": [2, 1, 0],
    "mono8": [0, 0, 0],
}
WIDTHS = {"rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4, "mono8": 1}  # bytes per pixel


def open_rosbag(request: Request) -> ForeignDataset:
    """Every bag at or below ``request.folder``. Raises UserError if there are none."""
    rosbags = need("rosbags.rosbag2", "rosbags", "ROS bags")
    typesys = need("rosbags.typesys", "rosbags", "ROS bags")
    store = typesys.get_typestore(typesys.Stores.ROS2_JAZZY)
    folder = request.folder
    bags = _bags(folder)
    if not bags:
        raise UserError(
            f"'{folder}' holds no rosbag2 folder (with metadata.yaml) and no .mcap or .db3 file; "
            "'ros2 bag reindex' may help"
        )
    recordings = [
        Recording(
            path.relative_to(folder).as_posix() if path != folder else path.name,
            partial(_read, rosbags, store, path, request),
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


def _read(rosbags: Any, store: Any, path: Path, request: Request) -> SourceEpisode:
    try:
        with rosbags.Reader(path) as bag:
            return _Bag(bag, store).episode(request)
    except BrokenEpisode:
        raise
    except (
        Exception
    ) as error:  # damage raises errors of struct, sqlite, yaml, zstd, the reader, ...
        raise BrokenEpisode(
            f"cannot be read ({' '.join(str(error).split()) or type(error).__name__})"
        ) from None


class _Bag:
    """An open bag. Times are integers in ns."""

    def __init__(self, bag: Any, store: Any) -> None:
        self.bag = bag
        self.store = store
        self.types = {name: info.msgtype for name, info in bag.topics.items()}

    def episode(self, request: Request) -> SourceEpisode:
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
        stamps, messages = self._read({*views.values(), *numeric}, set(numeric))
        rows = _rows(stamps, request.fps or FPS)
        picks = {topic: _nearest(times, rows, topic) for topic, times in stamps.items()}
        numbers = {topic: [messages[topic][i] for i in picks[topic]] for topic in messages}
        state, state_names = _vectors(
            {topic: numbers[topic] for topic in state_topics}, len(rows)
        )  # (T, S)
        if request.action:
            action, action_names = _vectors(
                {topic: numbers[topic] for topic in action_topics}, len(rows)
            )
        else:  # the joint state one row later; the last row has none and is dropped
            state, action, action_names = state[:-1], state[1:], state_names
        frames = self._frames(
            {topic: picks[topic][: len(state)] for topic in views.values()}, request.image_size
        )
        images = {view: stack_images(frames[topic], 0, topic) for view, topic in views.items()}
        custom = getattr(self.bag.storage.metadata, "custom", None) or {}
        return SourceEpisode(
            images, state, action, state_names, action_names, str(custom.get("task", "")).strip()
        )

    def _of(self, types: tuple[str, ...]) -> str:
        return listing(name for name, kind in self.types.items() if kind in types)

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

    def _read(
        self, topics: set[str], kept: set[str]
    ) -> tuple[dict[str, np.ndarray], dict[str, list[Any]]]:
        """The stamps of every topic, and the messages of the topics in ``kept``."""
        stamps: dict[str, list[int]] = {topic: [] for topic in topics}
        messages: dict[str, list[Any]] = {topic: [] for topic in kept}
        for topic, recorded, message in self._messages(topics):
            stamp = message.header.stamp if hasattr(message, "header") else None
            stamps[topic].append((stamp.sec * SECOND + stamp.nanosec if stamp else 0) or recorded)
            if topic in kept:
                messages[topic].append(message)
        silent = sorted(topic for topic, times in stamps.items() if not times)
        if silent:
            raise BrokenEpisode(f"{silent[0]} has no messages")
        return {topic: np.array(times) for topic, times in stamps.items()}, messages

    def _frames(self, picks: dict[str, np.ndarray], size: int) -> dict[str, list[np.ndarray]]:
        """The picked messages of image topics as uint8 RGB (H, W, 3), resized to ``size`` pixels
        unless it is 0.
        """
        wanted = {topic: set(numbers.tolist()) for topic, numbers in picks.items()}
        found: dict[str, dict[int, np.ndarray]] = {topic: {} for topic in picks}
        seen = dict.fromkeys(picks, 0)
        for topic, _, message in self._messages(picks):
            if seen[topic] in wanted[topic]:
                image = _image(message, topic)
                found[topic][seen[topic]] = resize_images(image, size) if size else image
            seen[topic] += 1
        return {
            topic: [found[topic][number] for number in numbers.tolist()]
            for topic, numbers in picks.items()
        }


def _vectors(topics: dict[str, list[Any]], steps: int) -> tuple[np.ndarray, list[str]]:
    """Messages of numeric topics, concatenated to float32 (T, n), and a name per column: the
    joint's name, or the topic's name and a number.
    """
    parts, names = [np.zeros((steps, 0), np.float32)], []
    for topic, messages in topics.items():
        prefix = topic.strip("/").replace("/", "_") + "_"
        if hasattr(messages[0], "position") and len(messages[0].name):
            joints = list(messages[0].name)
            rows = [_joints(message, joints, topic) for message in messages]
            names += [prefix + joint if len(topics) > 1 else joint for joint in joints]
        else:
            rows = [
                (message.position if hasattr(message, "position") else message.data).tolist()
                for message in messages
            ]
            names += [f"{prefix}{i}" for i in range(len(rows[0]))]
        if {len(row) for row in rows} != {len(rows[0])} or not rows[0]:
            raise BrokenEpisode(f"{topic} is empty or changes its width")
        parts.append(np.array(rows, np.float32))
    return np.concatenate(parts, axis=1), names


def _rows(stamps: dict[str, np.ndarray], fps: float) -> np.ndarray:
    """Times (T,) of the rows, from the start of the last topic to the end of the first one."""
    begin = max(int(times.min()) for times in stamps.values())
    end = min(int(times.max()) for times in stamps.values())
    count = (end - begin) * fps // SECOND + 1 if end >= begin else 0
    if count < 2:
        late = max(stamps, key=lambda topic: stamps[topic].min())
        raise BrokenEpisode(
            f"its topics overlap by less than two rows ({late} begins last); "
            "do some messages lack header stamps?"
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


def _joints(message: Any, joints: list[str], topic: str) -> list[float]:
    """The positions, in the order of ``joints``."""
    found = dict(zip(message.name, message.position.tolist(), strict=False))
    if set(found) != set(joints) or len(message.position) != len(joints):
        raise BrokenEpisode(
            f"{topic} changes its joints: {listing(found)}, but {listing(joints)} came first"
        )
    return [found[joint] for joint in joints]


def _image(message: Any, topic: str) -> np.ndarray:
    """An Image or CompressedImage message as uint8 RGB (H, W, 3)."""
    if not hasattr(message, "encoding"):
        return decode_image(message.data.tobytes(), topic)
    if message.encoding not in CHANNELS:
        raise BrokenEpisode(
            f"{topic} carries '{message.encoding}' images; {', '.join(CHANNELS)} are read "
            "(is it a depth topic?)"
        )
    width, row = WIDTHS[message.encoding], message.width * WIDTHS[message.encoding]
    if (
        not row
        or not message.height
        or message.step < row
        or message.data.size != message.height * message.step
    ):
        raise BrokenEpisode(
            f"{topic} carries a broken image: {message.width}x{message.height}, "
            f"step {message.step}, {message.data.size} bytes"
        )
    pixels = message.data.reshape(message.height, message.step)[:, :row].reshape(
        message.height, message.width, width
    )
    return np.ascontiguousarray(pixels[:, :, CHANNELS[message.encoding]])
