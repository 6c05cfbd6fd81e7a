"""The topics of a ROS 2 bag: types, counts, rates, gaps and stamps, without decoding messages."""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alam_core.data.checks import Finding
from alam_core.errors import UserError
from alam_training.converters.rosbag import unreadable
from alam_training.converters.rosbag_clocks import CLOCKS, MAX_GAP
from alam_training.converters.source import need

SECOND = 1e9  # ns
LONG_GAP = 2 * MAX_GAP  # s between two messages, of which a row in between is too far
UNUSUAL = 5.0  # a gap this many times as long as the usual one is worth a word


@dataclass
class BagTopic:
    """A topic of a bag. recorded, stamps: times in s, (N,); without a header, they are the same.
    publishers: connections of the topic.
    """

    name: str
    kind: str
    publishers: int
    recorded: np.ndarray
    stamps: np.ndarray

    def describe(self) -> str:
        """Type, number of messages, rate and longest gap."""
        count = len(self.recorded)
        text = f"{self.kind}, {count} messages"
        if count < 2:
            return text
        span, gaps = np.ptp(self.recorded), np.diff(np.sort(self.recorded))
        rate = f"{(count - 1) / span:.3g} per second" if span else "all at one time"
        return f"{text}, {rate}, longest gap {gaps.max():.2f} s"

    def check(self) -> list[Finding]:
        """Findings about silence, gaps, clocks, and topics with several publishers."""
        found: list[tuple[str, str]] = []
        if not len(self.recorded):
            return [self._finding("warning", "no messages: was its node running?")]
        if self.publishers > 1:
            found.append(
                (
                    "note",
                    f"{self.publishers} publishers: convert refuses the bag if two of them publish "
                    "the same joint; record each on a topic of its own",
                )
            )
        order = np.sort(self.recorded)
        gaps = np.diff(order)
        if len(gaps) and gaps.max() > max(LONG_GAP, UNUSUAL * float(np.median(gaps))):
            at = order[gaps.argmax()] - order[0]
            found.append(
                (
                    "warning",
                    f"no message for {gaps.max():.2f} s, {at:.1f} s after its first: if convert "
                    "reads this topic, it leaves the episode out; record again, with a faster disk "
                    "or less data",
                )
            )
        late = self.recorded - self.stamps
        if abs(float(np.median(late))) > CLOCKS:
            found.append(
                (
                    "warning",
                    f"its stamps are {abs(float(np.median(late))):.3g} s "
                    f"{'before' if np.median(late) > 0 else 'after'} the time of recording: the "
                    "clocks of two machines differ; synchronise them",
                )
            )
        elif np.ptp(late) > CLOCKS:
            found.append(
                (
                    "warning",
                    f"between stamp and recording lie {late.min():.2f} to {late.max():.2f} s: a "
                    "clock was set during the recording, or messages were held up; record again",
                )
            )
        return [self._finding(level, message) for level, message in found]

    def _finding(self, level: Any, message: str) -> Finding:
        return Finding(level, f"topic {self.name}", message)


def read_topics(path: Path) -> list[BagTopic]:
    """The topics of a bag, by name. Raises UserError if the bag cannot be read."""
    reader = need("rosbags.rosbag2", "rosbags", "ROS bags").Reader
    typesys = need("rosbags.typesys", "rosbags", "ROS bags")
    known = typesys.get_typestore(typesys.Stores.ROS2_JAZZY).fielddefs
    try:
        with reader(path) as bag:
            stamped = {
                info.msgtype
                for info in bag.topics.values()
                if info.msgtype in known and known[info.msgtype][1][0][0] == "header"
            }
            recorded: dict[str, list[int]] = {name: [] for name in bag.topics}
            stamps: dict[str, list[int]] = {name: [] for name in bag.topics}
            for connection, time, data in bag.messages():
                recorded[connection.topic].append(time)
                stamp = _stamp(data) if connection.msgtype in stamped else 0
                stamps[connection.topic].append(stamp or time)
            return [
                BagTopic(
                    name,
                    info.msgtype or "several types",
                    len(info.connections),
                    np.array(recorded[name]) / SECOND,
                    np.array(stamps[name]) / SECOND,
                )
                for name, info in sorted(bag.topics.items())
            ]
    except (
        Exception
    ) as error:  # damage raises errors of struct, sqlite, yaml, zstd, the reader, ...
        raise UserError(f"bag '{path}' cannot be read: {unreadable(path, error)}") from None


def _stamp(data: bytes) -> int:
    """The stamp in ns of a serialised message that begins with a header."""
    seconds, nanoseconds = struct.unpack_from("<iI" if data[1] & 1 else ">iI", data, 4)
    return int(seconds) * 10**9 + int(nanoseconds)
