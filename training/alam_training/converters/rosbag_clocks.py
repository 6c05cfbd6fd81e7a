"""Whether the stamps of a bag's messages can be believed: a clock that was set while a topic was
recorded, and clocks of two machines that differ.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from alam_training.converters.source import BrokenEpisode

MAX_GAP = 0.5  # s from a row to the nearest message of a topic; a longer gap breaks the episode
MAX_DISORDER = 0.5  # s by which the stamps of a topic may go back from one message to the next
CLOCKS = 1.0  # s between stamp and time of recording that a delay cannot explain
SECOND = 1_000_000_000  # ns
DAY = 24 * 3600 * SECOND
RECORDED = "--stamps recording takes the time of recording instead"


@dataclass
class TimedMessages:
    """Stamps of a topic's messages, in the order of recording, and the messages, if they are
    kept.
    """

    stamps: np.ndarray
    recorded: np.ndarray
    messages: list[Any]


def check_clock(name: str, topic: TimedMessages) -> None:
    """Raises BrokenEpisode if the clock of a topic's stamps was set while it was recorded."""
    steps, recorded = np.diff(topic.stamps), np.diff(topic.recorded)
    # In a gap between messages both clocks go on.
    forward = (steps > 2 * MAX_GAP * SECOND) & (recorded < steps / 2)
    for jumps, by, advice in (
        (forward | (steps < -MAX_DISORDER * SECOND), steps, f"or two nodes publish it; {RECORDED}"),
        (recorded > DAY, recorded, "that of the recording, too; split the bag there"),
    ):
        if jumps.any():
            i = jumps.argmax()
            raise BrokenEpisode(
                f"the stamps of {name} jump by {by[i] / SECOND:+,.1f} s, "
                f"{after(topic.recorded[i] - topic.recorded[0])} its first message: a clock was "
                f"set, {advice}"
            )


def compare_clocks(topics: Mapping[str, TimedMessages]) -> None:
    """Raises BrokenEpisode if the stamps of two topics come from clocks that differ: the images
    would be those of another moment than the joints.
    """
    delays = {
        name: float(np.median(topic.recorded - topic.stamps)) / SECOND
        for name, topic in topics.items()
    }
    late, early = max(delays, key=delays.__getitem__), min(delays, key=delays.__getitem__)
    if delays[late] - delays[early] > CLOCKS:
        raise BrokenEpisode(
            f"beside the time of recording, the stamps of {late} are "
            f"{delays[late] - delays[early]:,.1f} s behind those of {early}: the clocks of two "
            f"machines differ; {RECORDED}"
        )


def after(duration: int) -> str:
    return f"{duration / SECOND:.1f} s after"
