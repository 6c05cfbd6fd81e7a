"""Sends random messages to an arm controller, in simulated time and without ROS, while frames are
lost, faults come and go, the loop stalls and people call services.
"""

import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from alam_core.robots.piper import JOINT_LIMITS, JOINT_NAMES, MAX_ACCELERATION, MAX_VELOCITY
from alam_demo.limit_check import STALL, LimitCount, count_broken
from alam_piper.config import ControllerConfig
from alam_piper.controller import ArmController
from alam_piper.feedback_watch import Reading
from alam_piper.frames import FEEDBACK_FRAMES
from alam_piper.gate import ChunkRejected, parse_chunk
from alam_piper.hardware import CTRL_MODE_CAN, MOVE_J, Feedback
from alam_piper.parameters import PERIOD
from alam_piper.startup import ArmLimits

START = np.array([0.0, 1.2, -1.2, 0.0, 0.6, 0.0, 0.05])  # rad and m
BLOCK = 500  # messages to one controller; the next one starts anew, from a seed of its own
FRAMES = tuple(FEEDBACK_FRAMES)
ODD = (np.nan, np.inf, -np.inf, 1e308, -1e308, 5e-324, -1.0, 0.0, 1e6)
FIRMWARE_LIMITS = ArmLimits(
    JOINT_LIMITS[:, 0], JOINT_LIMITS[:, 1], np.full(6, MAX_VELOCITY), np.full(6, MAX_ACCELERATION)
)
MESSAGES = {  # kind of message -> how often
    "towards a goal": 60,
    "walk": 12,
    "wild stamp": 6,
    "replay": 5,
    "second publisher": 5,
    "garbage": 4,
    "broken fields": 4,
    "dropped steps": 4,
}
EVENTS = {  # what happens between two messages -> how often; otherwise nothing
    "stall": 1.0,
    "lost frames": 0.5,
    "fault": 0.5,
    "request": 1.0,
    "push": 0.3,
    "stuck": 0.3,
    "power": 0.2,
    "clock back": 0.2,
    "repair": 3.0,
}


@dataclass
class FuzzCount:
    """What the messages led to.

    failed: the seed and the error of the first crashes, and the seeds with limits broken.
    """

    messages: int = 0
    accepted: int = 0
    rejected: int = 0
    rejections_without_reason: int = 0
    crashes: int = 0
    sent_without_permission: int = 0
    limits: LimitCount = field(default_factory=LimitCount)
    states: Counter[str] = field(default_factory=Counter)  # ticks in each state
    failed: list[str] = field(default_factory=list)

    def values(self) -> dict[str, Any]:
        """For the result file."""
        return {
            "messages": self.messages,
            "accepted": self.accepted,
            "rejected": self.rejected,
            "rejections_without_reason": self.rejections_without_reason,
            "crashes": self.crashes,
            "sent_without_permission": self.sent_without_permission,
            **self.limits.values(),
            "ticks_by_state": dict(self.states),
            "failed": self.failed[:10],
        }


class ReportingArm:
    """A perfect arm that reports what it is told to report, one reading per tick."""

    def __init__(self) -> None:
        self.position = START.copy()
        self.powered = False
        self.stuck = False
        self.repair()
        self._counts = [0] * len(FRAMES)
        self._status = (0, 0)  # as last sent: control mode and arm status
        self._powers = [False] * 6
        self._shown = START.copy()

    def repair(self) -> None:
        """Take every fault away, except that power stays as it is."""
        self.lost: frozenset[int] = frozenset()
        self.arm_status = 0
        self.ctrl_mode = CTRL_MODE_CAN
        self.move_mode = MOVE_J
        self.error_code = 0
        self.driver_faults: tuple[str, ...] = ()
        self.foreign_writer = ""
        self.stuck = False

    def reading(self) -> Reading:
        """The next reading; what is lost stays as it was."""
        for i, frame in enumerate(FRAMES):
            if frame in self.lost:
                continue
            self._counts[i] += 1
            if frame in (0x2A5, 0x2A6, 0x2A7):
                joints = slice(2 * (frame - 0x2A5), 2 * (frame - 0x2A5) + 2)
                self._shown[joints] = self.position[joints]
            elif frame == 0x2A8:
                self._shown[6] = self.position[6]
            elif frame == 0x2A1:
                self._status = (self.ctrl_mode if self.powered else 0, self.arm_status)
            elif frame in range(0x261, 0x267):
                self._powers[frame - 0x261] = self.powered
        if not all(self._counts):
            return Reading(missing="frames are missing")
        feedback = Feedback(
            float(sum(self._counts)),
            self._shown.copy(),
            np.zeros(6),
            *self._status,
            0,
            tuple(self._powers),
            self.driver_faults,
            tuple(self._counts),
            self.error_code,
            self.move_mode,
        )
        return Reading(feedback, "", "S-V1.8-2", FIRMWARE_LIMITS, self.foreign_writer)


class FuzzBlock:
    """One controller and its arm, from a seed."""

    def __init__(self, count: FuzzCount, seed: tuple[int, int]) -> None:
        self.count, self.seed = count, seed
        self.rng = np.random.default_rng(seed)
        self.config = ControllerConfig()
        self.arm, self.controller = ReportingArm(), ArmController(self.config)
        self.now, self.sequence = 100.0, 0
        self.may_send = False
        self.goal = START.copy()
        self._time = 0.0  # s by which set-points moved
        self._starts_anew = True
        self._times: list[float] = []
        self._points: list[np.ndarray] = []
        self._fresh: list[bool] = []

    def run(self, messages: int) -> None:
        """Send so many messages, then count what was sent to the arm."""
        self.ticks(20)
        self.request("enable")
        self.ticks(30)
        kinds, events = list(MESSAGES), list(EVENTS)
        often = np.array(list(MESSAGES.values())) / sum(MESSAGES.values())
        odds = np.array(list(EVENTS.values())) / 100.0
        for _ in range(messages):
            self.count.messages += 1
            self.offer(str(self.rng.choice(kinds, p=often)))
            self.ticks(1 + int(self.rng.random() < 0.3))
            for event, odd in zip(events, odds, strict=True):
                if self.rng.random() < odd:
                    self.happen(event)
        found = self.check()
        self.count.limits.add(found)
        if found.broken:
            self.count.failed.append(f"seed {self.seed}: {dict(found.by_kind)}")

    def check(self) -> LimitCount:
        """Count the set-points sent that break a limit."""
        assert self.config.workspace is not None
        return count_broken(
            np.array(self._times),
            np.array(self._points).reshape(-1, 7),
            np.array(self._fresh, dtype=bool),
            self.config.limits,
            self.config.workspace,
            PERIOD,
        )

    def ticks(self, number: int) -> None:
        """So many ticks, which are a little irregular."""
        for _ in range(number):
            self.tick(PERIOD * float(self.rng.uniform(0.5, 1.5)))

    def tick(self, gap: float) -> None:
        """One tick, ``gap`` s after the one before; negative if the clock is set back."""
        controller = self.controller
        self.now += gap
        self._time += max(gap, 0.0)
        output = controller.tick(self.now, self.arm.reading())
        self.count.states[str(controller.state)] += 1
        self._starts_anew |= controller.state not in ("HOLDING", "EXECUTING", "FAULT")
        if output.enable:
            self.count.sent_without_permission += not self.may_send
            self.arm.powered = True
        if output.set_point is None:
            return
        self.count.sent_without_permission += not self.may_send
        self._record(self._starts_anew)
        if not self.arm.stuck and self.arm.powered:
            self.arm.position = output.set_point.copy()

    def _record(self, fresh: bool) -> None:
        self._times.append(self._time)
        self._points.append(self.controller.set_point.position.copy())
        self._fresh.append(fresh)
        self._starts_anew = False

    def request(self, name: str) -> None:
        """Call a service."""
        was_fault = self.controller.state == "FAULT"
        refused = getattr(self.controller, name)()
        if name == "enable" and refused is None:
            self.may_send = True
        elif name == "power_off" and refused is None:
            self.arm.powered = False
        elif was_fault and self.controller.state == "HOLDING":
            self._record(fresh=True)  # where the set-point starts, if it moves in the next tick

    def happen(self, event: str) -> None:
        """Let something else happen."""
        rng, arm = self.rng, self.arm
        if event == "stall":
            low, high = ((STALL + 0.1) * PERIOD, 2.0) if rng.random() < 0.7 else (1e-4, 0.0199)
            self.tick(rng.uniform(low, high))
        elif event == "lost frames":
            arm.lost = frozenset(rng.choice(FRAMES, rng.integers(1, 4)).tolist())
        elif event == "fault":
            kind = rng.integers(6)
            if kind == 0:
                arm.arm_status = int(rng.choice([1, 7]))
            elif kind == 1:
                arm.error_code = int(rng.integers(1, 2**16))
            elif kind == 2:
                arm.driver_faults = ("joint3 driver_error_status",)
            elif kind == 3:
                arm.move_mode = 4
            elif kind == 4:
                arm.ctrl_mode = 2
            else:
                arm.foreign_writer = "another program sends commands"
        elif event == "request":
            names = ["enable", "disable", "hold", "reset_fault", "power_off"]
            self.request(str(rng.choice(names)))
        elif event == "push":
            moved = arm.position.copy()
            moved[rng.integers(6)] += rng.uniform(-0.4, 0.4)
            arm.position = np.clip(moved, self.config.limits.lower, self.config.limits.upper)
        elif event == "stuck":
            arm.stuck = True
        elif event == "power":
            arm.powered = not arm.powered
        elif event == "clock back":
            self.tick(-rng.uniform(0.0, 5.0))
        elif event == "repair":
            arm.repair()
            if self.controller.state not in ("HOLDING", "EXECUTING"):
                self.ticks(25)
                self.request("reset_fault")
                self.request("enable")
                self.ticks(20)

    def offer(self, kind: str) -> None:
        """Send one message."""
        try:
            self.controller.offer(*self.message(kind))
            self.count.accepted += 1
        except ChunkRejected as reason:
            self.count.rejected += 1
            self.count.rejections_without_reason += not str(reason).strip()
            self.controller.count_rejected(str(reason))

    def message(self, kind: str) -> tuple[Any, str]:
        """A chunk and its source. Raises ChunkRejected if its fields are wrong."""
        rng, here = self.rng, self.controller.set_point.position
        names: list[str] = list(JOINT_NAMES)
        source, age, dt, steps, first = "a", rng.uniform(0.0, 0.1), 0.05, 10, 0
        sequence = self.sequence = self.sequence + 1
        if np.abs(self.goal - here)[:6].max() < 0.1 or rng.random() < 0.01:
            self.goal = rng.uniform(self.config.limits.lower, self.config.limits.upper)
        reach = min(1.0, 0.6 / max(float(np.abs(self.goal - here)[:6].max()), 1e-9))
        rows = here + (self.goal - here) * reach * np.linspace(0.1, 1.0, steps)[:, None]
        if kind == "walk":
            scale = rng.choice([0.02, 0.3, 3.0, 1e300])
            rows = here + rng.normal(0.0, scale, (steps, 7)) * ([1.0] * 6 + [0.1])
            dt = float(rng.choice([0.01, 0.1, 0.5, 1.0]))
        elif kind == "wild stamp":
            age = float(rng.choice([-1e9, -0.2, -0.05, 0.5, 0.99, 1.5, 1e9, rng.normal()]))
        elif kind == "replay":
            sequence = max(0, sequence - int(rng.integers(1, 50)))
        elif kind == "second publisher":
            source, sequence = str(rng.choice(["b", "", "a" * 100])), int(rng.integers(0, 2**63))
        elif kind == "garbage":
            rows[rng.integers(steps), rng.integers(7)] = rng.choice(ODD)
        elif kind == "broken fields":
            choice = rng.integers(4)
            if choice == 0:
                names = names[:-1] if rng.random() < 0.5 else [*names[:-1], names[0]]
            elif choice == 1:
                dt = float(rng.choice(ODD))
            elif choice == 2:
                steps = int(rng.choice([0, 9, 11, 1001, 2**31]))
            else:
                rows = rows[:, :6]
        elif kind == "dropped steps":
            first = int(rng.integers(1, 6))
            age = first * dt + rng.uniform(-0.05, 0.1)
        chunk = parse_chunk(
            self.now - age, sequence, names, dt, steps, rows.ravel().tolist(), first
        )
        return chunk, source


def fuzz(messages: int, seed: int, done: Callable[[int], None] = lambda _: None) -> FuzzCount:
    """Send so many messages to controllers, each from its own seed. done: called with the number
    of messages sent so far.
    """
    count = FuzzCount()
    for block in range(-(-messages // BLOCK)):
        left = min(BLOCK, messages - block * BLOCK)
        try:
            FuzzBlock(count, (seed, block)).run(left)
        except Exception:
            count.crashes += 1
            count.failed.append(f"seed {(seed, block)}: {traceback.format_exc(limit=-2)}")
        count.messages = min(messages, (block + 1) * BLOCK)
        done(count.messages)
    return count
