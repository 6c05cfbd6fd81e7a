"""The faults that ``controller_faults`` measures, by name."""

import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from std_srvs.srv import Trigger

from alam_common.processes import ChildProcess
from alam_demo.fault_stage import FaultStage
from alam_demo.motion_stream import DT, EVERY, ROWS
from alam_piper.emulator import ArmEmulator
from alam_piper.faults import FAULTS
from alam_piper.gate import MAX_ROWS

SPEED = 0.9  # rad/s, of the straight chunks
FOLDED = np.array([0.0, 1.04, -0.35, 0.0, 1.17, 0.0, 0.05])
"""rad and m: the fingers are in the base."""
LOWERED = np.array([0.0, 1.4, 0.0, 0.0, 0.0, 0.0, 0.0])
"""rad and m: this further, the tool is below the floor."""
FEEDBACK_TIMEOUT = 0.1  # s, the controller's default
COMMAND_TIMEOUT = 0.2  # s, the controller's default
BOUNDARY = "the arm may go as far as the boundary; limits_broken counts what is beyond it"
GOES_ON = "the chunk is refused and the arm goes on with the chunk before it"

Act = Callable[[FaultStage], float | None]


@dataclass(frozen=True)
class FaultRow:
    """A fault and what to expect of it.

    what: one line. begin, end: bring it about and take it away; ``begin`` may return when it did so
    in s on the wall clock, if that is not when it was called. expect: how it ends: ``fault``, a
    latched FAULT; ``hold``, the arm holds; ``stall``, the loop stands still; ``refuse``, a chunk is
    refused and the arm goes on; ``start``, enabling is refused. check: of a ``fault`` or ``start``,
    the name in its reason. known: from the beginning, when it could be known at the earliest, both
    in s on the wall clock. why: why there is no overshoot, or no time to hold; "" if there is.
    """

    what: str
    begin: Act
    end: Act
    expect: str = "fault"
    check: str = ""
    known: Callable[[FaultStage, float], float] = lambda stage, began: began
    why: str = ""


def _nothing(_: FaultStage) -> None:
    """Nothing has to be taken away."""


def _change(apply: Callable[[ArmEmulator], None]) -> Act:
    return lambda stage: stage.change(apply)


def _after_silence(_: FaultStage, began: float) -> float:
    """When lost feedback is older than allowed."""
    return began + FEEDBACK_TIMEOUT


def _after_leaving(stage: FaultStage, _: float) -> float:
    """When the arm has been too far from its set-point for as long as allowed."""
    return stage.away_since + FEEDBACK_TIMEOUT


def _after_chunk(stage: FaultStage, _: float) -> float:
    """When the last chunk has ended for as long as allowed."""
    return stage.chunk_end + COMMAND_TIMEOUT


def _of_table(name: str) -> FaultRow:
    fault = FAULTS[name]
    known = {"feedback": _after_silence, "tracking": _after_leaving}
    return FaultRow(
        fault.what,
        _change(fault.inject),
        _change(fault.clear),
        "start" if fault.at_start else "fault",
        fault.check,
        known.get(fault.check, FaultRow.known),
    )


def _mute(frames: frozenset[int]) -> Act:
    return _change(lambda emulator: setattr(emulator, "muted_frames", frames))


def _lost(frame: int) -> FaultRow:
    return FaultRow(
        f"the frame {frame:#x} is lost",
        _mute(frozenset([frame])),
        _mute(frozenset()),
        check="feedback",
        known=_after_silence,
    )


def _stick(stuck: bool) -> Act:
    return _change(lambda emulator: emulator.stuck.__setitem__(slice(None), stuck))


def _send_straight(stage: FaultStage, goal: np.ndarray) -> None:
    """Send one chunk in a straight line to a pose, and then no other."""
    stage.stream.stop()
    start = stage.set_point
    way = goal - start
    count = max(2, int(np.abs(way[:6]).max() / SPEED / DT))
    stage.stream.send(start + way * (np.arange(1, count + 1) / count)[:, None])


def _over_long(stage: FaultStage) -> None:
    stage.stream.stop()
    stage.stream.send(np.tile(stage.set_point + 0.2, (MAX_ROWS, 1)), 1.0)


def _start_jump(stage: FaultStage) -> None:
    rows = np.tile(stage.set_point, (ROWS, 1))
    rows[:, 0] += 2.5 if rows[0, 0] < 0 else -2.5
    stage.stream.send(rows)


def _second_publisher(stage: FaultStage) -> None:
    for _ in range(3):
        stage.other.send(np.tile(stage.set_point + 0.2, (ROWS, 1)))
        time.sleep(EVERY / 2)


def _hold(stage: FaultStage) -> None:
    stage.call("hold", Trigger.Request())


def _stall(seconds: float) -> Act:
    def apply(stage: FaultStage) -> None:
        stage.controller.send(signal.SIGSTOP)
        time.sleep(seconds)
        stage.controller.send(signal.SIGCONT)

    return apply


def _kill_publisher(stage: FaultStage) -> float:
    """Let a process of its own move the arm, then kill it."""
    stage.settle()
    before = stage.chunk_end
    command = [sys.executable, "-m", "alam_demo.motion_stream", stage.namespace]
    publisher = ChildProcess("motion_stream", command)
    try:
        # Both the controller and this process must hear it, as ``chunk_end`` is measured here.
        heard = lambda: stage.state == "EXECUTING" and stage.chunk_end > before  # noqa: E731
        stage.until(heard, 60.0, "the publisher's first chunk")
        time.sleep(stage.rng.uniform(0.3, 1.0))
        publisher.send(signal.SIGKILL)
        return time.time()
    finally:
        publisher.stop()


def _move_by_hand(stage: FaultStage) -> None:
    """The arm is moved while the frame that tells it is lost, towards the middle of its range."""

    def apply(emulator: ArmEmulator) -> None:
        emulator.muted_frames = frozenset((0x2A5,))
        way = -0.3 if stage.plant.joints[0] > 0.0 else 0.3
        stage.plant.joints = stage.plant.joints + [way, 0.0, 0.0, 0.0, 0.0, 0.0]
        emulator.teleport()

    stage.change(apply)


FRAMES = (0x2A1, 0x2A5, 0x2A7, 0x2A8, 0x253, 0x264)  # 0x2a6 is the table's ``frames_missing``
ROWS_BY_NAME: dict[str, FaultRow] = {
    **{name: _of_table(name) for name, fault in FAULTS.items() if not fault.at_start},
    **{f"lost_{frame:#x}": _lost(frame) for frame in FRAMES},
    "stuck_arm": FaultRow(
        "no joint follows", _stick(True), _stick(False), "fault", "tracking", _after_leaving
    ),
    "hold_service": FaultRow(
        "somebody calls alam/arm/hold",
        _hold,
        _nothing,
        "hold",
    ),
    "publisher_stops": FaultRow(
        "no further chunk is published",
        lambda stage: stage.stream.stop(),
        _nothing,
        "hold",
        known=_after_chunk,
    ),
    "publisher_killed": FaultRow(
        "the process that publishes chunks is killed",
        _kill_publisher,
        _nothing,
        "hold",
        known=_after_chunk,
    ),
    "over_long_chunk": FaultRow(
        "one chunk of 1000 rows of 1 s, and then no other: it must be refused",
        _over_long,
        _nothing,
        "hold",
        known=_after_chunk,
    ),
    "chunk_below_floor": FaultRow(
        "a chunk leads below the floor",
        lambda stage: _send_straight(stage, stage.set_point + LOWERED),
        _nothing,
        "hold",
        why=BOUNDARY,
    ),
    "folded_pose": FaultRow(
        "a chunk leads into the arm itself",
        lambda stage: _send_straight(stage, FOLDED),
        _nothing,
        "hold",
        why=BOUNDARY,
    ),
    "start_jump": FaultRow(
        "a chunk begins 2.5 rad from the set-point", _start_jump, _nothing, "refuse", why=GOES_ON
    ),
    "huge_targets": FaultRow(
        "a chunk with targets of 1e308",
        lambda stage: stage.stream.send(np.full((ROWS, 7), 1e308)),
        _nothing,
        "refuse",
        why=GOES_ON,
    ),
    "two_publishers": FaultRow(
        "a second publisher sends chunks", _second_publisher, _nothing, "refuse", why=GOES_ON
    ),
    "stall_250_ms": FaultRow(
        "the controller's process stands still for 0.25 s", _stall(0.25), _nothing, "stall"
    ),
    "stall_1_s": FaultRow(
        "the controller's process stands still for 1 s", _stall(1.0), _nothing, "stall"
    ),
    **{name: _of_table(name) for name, fault in FAULTS.items() if fault.at_start},
    "moved_by_hand": FaultRow(
        "the arm is moved by hand while the frame that tells it is lost",
        _move_by_hand,
        _mute(frozenset()),
        "start",
        "feedback",
    ),
}
