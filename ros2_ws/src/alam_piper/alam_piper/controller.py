"""The controller's state machine, without ROS: it takes feedback, requests and chunks, and returns
one set-point per tick.

``now`` is always the time in s on the node's clock (ROS time). Set-points are (7,): six joints in
rad, gripper opening in m.

    DISABLED --enable--> ENABLING --powered, seeded--> HOLDING <--chunk / end, hold--> EXECUTING
    DISABLED <--disable, once at rest-- HOLDING
    FAULT <--failed check-- any powered state
    FAULT --reset_fault--> HOLDING, or DISABLED without power

To stop, the arm brakes at the acceleration limit and then holds. Motor power is never cut.
"""

from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from alam_core.robots.piper import JOINT_LIMITS
from alam_core.runtime.motion import MotionLimits, SetPoint, make_limits
from alam_core.runtime.timeline import Timeline
from alam_core.types import ActionChunk
from alam_piper.checks import FEEDBACK, HEALTH, POWERED, START, Situation, first_failure
from alam_piper.frames import FEEDBACK_FRAMES
from alam_piper.gate import ChunkGate, ChunkRejected, ChunkRules, beyond_limits
from alam_piper.hardware import Feedback
from alam_piper.startup import ArmLimits


class State(StrEnum):
    DISABLED = "DISABLED"
    ENABLING = "ENABLING"
    HOLDING = "HOLDING"
    EXECUTING = "EXECUTING"
    FAULT = "FAULT"


@dataclass(frozen=True)
class ControllerConfig:
    """Settings of the controller. Times are in s.

    limits: of the set-point. rules: for accepting chunks. period: of the loop; a late tick moves
    the set-point by at most four periods. command_timeout: time after a chunk's last row at which
    the arm holds. feedback_timeout: age above which feedback is a fault. enable_timeout: how long
    to wait for the arm to report power. enable_interval: between two requests for power. settle:
    least time between the first request and the feedback that the set-point starts from. fade:
    duration of the transition from one chunk to the next.
    """

    limits: MotionLimits = field(default_factory=lambda: make_limits(JOINT_LIMITS))
    rules: ChunkRules = ChunkRules()
    period: float = 0.005
    command_timeout: float = 0.2
    feedback_timeout: float = 0.1
    enable_timeout: float = 5.0
    enable_interval: float = 0.1
    settle: float = 0.05
    fade: float = 0.15


@dataclass(frozen=True)
class Output:
    """What to send in this tick: a request for power, a set-point (7,), or nothing."""

    enable: bool = False
    set_point: np.ndarray | None = None
    first_of_chunk: float | None = (
        None  # if this is a chunk's first set-point: the chunk's stamp, s
    )


class ArmController:
    """The state machine. Call ``tick`` once per period; the other methods are requests, which may
    be called at any time between ticks.
    """

    def __init__(self, config: ControllerConfig):
        self.config = config
        self.state = State.DISABLED
        self.reason = "not enabled yet"
        self.stopped_short = False  # whether the arm holds by request or after a problem
        self.last_fault = ""
        self.feedback: Feedback | None = None
        self.feedback_time = -np.inf  # s, when the newest feedback was first seen
        self.firmware = ""  # what the arm told at start, set by the caller
        self.arm_limits: ArmLimits | None = None
        self.foreign_writer = ""  # who else sends on the bus, set by the caller
        self.strict = False  # whether the arm must have told its firmware and limits
        self._counts: tuple[int, ...] = ()
        self._risen: dict[int, float] = {}  # frame -> s, when its count last changed
        self._missing = ""  # what the connection lacks to give feedback
        self.gripper_velocity = 0.0  # m/s, from the last two feedback snapshots
        self.set_point = SetPoint(config.limits)
        self.accepted = 0
        self.rejected = 0
        self.last_rejection = ""
        self.last_rejection_time = -np.inf  # s
        self.last_chunk_time: float | None = None  # s, when the last chunk was accepted
        self._timeline = Timeline(config.fade)
        self._gate = ChunkGate(config.rules)
        self._now: float | None = None
        self._hold_requested = False  # chunks are rejected until ``enable``
        self._disable_when_at_rest = False
        self._enable_deadline = 0.0
        self._enable_next = 0.0
        self._settled = 0.0  # s, from when on feedback may seed the set-point while enabling
        self._unsent_chunk: float | None = None  # stamp of a chunk without a set-point sent yet

    @property
    def now(self) -> float | None:
        """Time of the last tick in s; None before the first."""
        return self._now

    @property
    def chunk(self) -> ActionChunk | None:
        """The chunk being executed, None if none is."""
        return self._timeline.chunk

    @property
    def clamped(self) -> str:
        """Which joints the chunk being executed asks to go beyond their limits; "" if none."""
        return beyond_limits(self.chunk, self.config.limits) if self.chunk else ""

    @property
    def feedback_age(self) -> float:
        """Seconds since the newest feedback was first seen; infinite before the first."""
        return np.inf if self._now is None else self._now - self.feedback_time

    @property
    def feedback_is_fresh(self) -> bool:
        return self.feedback_age <= self.config.feedback_timeout

    @property
    def feedback_problem(self) -> str | None:
        """Why there is no fresh feedback, one line; None if there is."""
        return first_failure((FEEDBACK,), self._situation())

    @property
    def is_silent(self) -> bool:
        """Whether nothing is sent to the arm: not enabled, or at rest in FAULT."""
        return self.state is State.DISABLED or (
            self.state is State.FAULT and self.set_point.at_rest
        )

    # Requests

    def enable(self) -> str | None:
        """Request motor power, or end a requested hold. Returns the reason if the request is
        refused, None if it is fulfilled or in progress.
        """
        if self.state is State.FAULT:
            return f"in FAULT ({self.reason}); call alam/arm/reset_fault first"
        if self.state in (State.HOLDING, State.EXECUTING):
            self._hold_requested = self._disable_when_at_rest = False
            if self.state is State.HOLDING:
                self._enter(State.HOLDING, "enabled, no chunk yet")
            return None
        if failure := first_failure(START, self._situation()):
            return failure
        if self.state is State.DISABLED:
            self._enter(State.ENABLING, "waiting for motor power")
            self._start_enabling(self._now or 0.0)
        return None

    def disable(self) -> None:
        """Brake, hold, then stop sending. The motors stay powered, so the arm does not drop. In
        FAULT the same as ``hold``.
        """
        if self.state is State.ENABLING:
            self._enter(State.DISABLED, "disabled by request")
        elif self.state in (State.HOLDING, State.EXECUTING):
            self._enter(State.HOLDING, "disabling: braking")
            self._disable_when_at_rest = True
        elif self.state is State.FAULT:
            self._hold_requested = True

    def hold(self, reason: str = "hold by request") -> None:
        """Brake and hold; chunks are rejected until ``enable`` is called, even if a FAULT is reset
        meanwhile. Cancels enabling in progress.
        """
        if self.state is State.ENABLING:
            self._enter(State.DISABLED, f"not enabled: {reason}")
        elif self.state is State.FAULT:
            self._hold_requested = True
        elif self.state is not State.DISABLED:
            self._enter(State.HOLDING, f"{reason}; call alam/arm/enable to go on")
            self._hold_requested = self.stopped_short = True

    def pause(self, reason: str) -> None:
        """If a chunk is being executed, brake and hold until the next valid chunk."""
        if self.state is State.EXECUTING:
            self._enter(State.HOLDING, reason)
            self.stopped_short = True

    def reset_fault(self) -> str | None:
        """Leave FAULT: to HOLDING at the measured pose, or, if the arm has no power or is not in
        CAN mode, to DISABLED, because only ``enable`` requests those.

        Returns the reason if the fault cannot be reset: its cause remains, or the arm still brakes.
        """
        if self.state is not State.FAULT:
            return None
        if failure := first_failure(START, self._situation()):
            self.reason = failure
            return f"the cause remains: {failure}"
        if not self.set_point.at_rest:
            return "still braking, try again"
        if failure := first_failure(POWERED, self._situation()):
            self._enter(State.DISABLED, f"fault reset, but {failure}; call alam/arm/enable")
            return None
        assert self.feedback is not None
        self.set_point.seed(self.feedback.positions)
        self._enter(
            State.HOLDING,
            "fault reset" + ("; call alam/arm/enable to go on" if self._hold_requested else ""),
        )
        self.stopped_short = self._hold_requested
        return None

    def offer(self, chunk: ActionChunk) -> None:
        """Start to execute a chunk. Raises ChunkRejected, with the reason, if it must not be."""
        if self.state not in (State.HOLDING, State.EXECUTING) or self._now is None:
            raise ChunkRejected(f"arm is {self.state} ({self.reason})")
        if self._hold_requested or self._disable_when_at_rest:
            raise ChunkRejected(f"arm is held ({self.reason})")
        self._gate.admit(chunk, self._now, self.state is State.EXECUTING)
        self._timeline.splice(chunk, self._now, self.set_point.position)
        self._enter(State.EXECUTING, "executing a chunk")
        self._unsent_chunk = chunk.stamp
        self.accepted += 1
        self.last_chunk_time = self._now

    def count_rejected(self, reason: str) -> None:
        """Count a rejected chunk and remember the reason."""
        self.rejected += 1
        self.last_rejection = reason
        self.last_rejection_time = self._now or 0.0

    def _start_enabling(self, now: float) -> None:
        self._enable_next = now
        self._enable_deadline = now + self.config.enable_timeout
        # Infinite until power and mode have been requested, because the arm may already be powered
        # in another mode or with another speed limit.
        self._settled = np.inf

    # The loop

    def tick(self, now: float, feedback: Feedback | None, missing: str = "") -> Output:
        """One period of the loop: process feedback, run the checks, and decide what to send.

        missing: what the connection lacks if there is no feedback, one line for the user.
        """
        self._missing = missing
        dt = self._advance(now)
        self._take(feedback, now)
        if self.state is State.DISABLED:
            return Output()
        if self.state is State.ENABLING:
            return self._tick_enabling(now)
        if self.state is not State.FAULT:
            if failure := first_failure(HEALTH + POWERED, self._situation()):
                self._fault(failure)
            elif (
                self.state is State.EXECUTING
                and (late := now - self._chunk_end()) > self.config.command_timeout
            ):
                self.pause(f"command: the last chunk ended {late:.3f} s ago")
        if dt <= 0.0:
            return Output()
        if self.state is State.EXECUTING:
            self.set_point.follow(self._timeline.at(now), dt)
            stamp, self._unsent_chunk = self._unsent_chunk, None
            return Output(set_point=self.set_point.position, first_of_chunk=stamp)
        return self._tick_stopped(dt)

    def _tick_enabling(self, now: float) -> Output:
        situation = self._situation()
        if failure := first_failure(START, situation):
            self._enter(State.DISABLED, f"not enabled: {failure}")
            return Output()
        waiting = first_failure(POWERED, situation)
        if waiting is None and self.feedback_time >= self._settled:
            assert self.feedback is not None
            self.set_point.seed(self.feedback.positions)
            self._enter(State.HOLDING, "enabled, no chunk yet")
            return Output(set_point=self.set_point.position)
        if now >= self._enable_deadline:
            self._enter(
                State.DISABLED,
                f"not enabled within {self.config.enable_timeout} s: "
                f"{waiting or 'no new feedback'}",
            )
            return Output()
        asked = self._settled < np.inf
        if (asked and waiting is None) or now < self._enable_next:
            return Output()
        self._enable_next = now + self.config.enable_interval
        if not asked:
            self._settled = now + self.config.settle
        return Output(enable=True)

    def _tick_stopped(self, dt: float) -> Output:
        """HOLDING or FAULT: brake to rest. Then HOLDING continues to send its set-point, while
        FAULT and disabling send nothing more.

        The firmware holds the last set-point. Because FAULT sends nothing, the arm does not jump
        back if someone moves it or restores its power meanwhile.
        """
        silent = self.state is State.FAULT or self._disable_when_at_rest
        if self.set_point.at_rest and silent:
            if self._disable_when_at_rest:
                self._disable_when_at_rest = False
                self._enter(State.DISABLED, "disabled by request, motors stay powered")
            return Output()
        return Output(set_point=self.set_point.brake(dt))

    def _advance(self, now: float) -> float:
        """The time in s by which the set-point moves in this tick: 0 on the first tick and when the
        clock jumped back, at most four periods.
        """
        before, self._now = self._now, now
        if before is None:
            return 0.0
        if now < before:
            self.feedback_time = min(self.feedback_time, now)
            self._risen = {frame: min(time, now) for frame, time in self._risen.items()}
            self._gate.forget()
            self.pause(f"clock jumped back by {before - now:.3f} s")
            self._start_enabling(now)
            return 0.0
        return min(now - before, 4.0 * self.config.period)

    def _take(self, feedback: Feedback | None, now: float) -> None:
        if feedback is not None and feedback.counts:
            before = self._counts or (0,) * len(feedback.counts)
            for frame, old, new in zip(FEEDBACK_FRAMES, before, feedback.counts, strict=True):
                if new != old:
                    self._risen[frame] = now
            self._counts = feedback.counts
        if feedback is None or (
            self.feedback is not None and feedback.stamp == self.feedback.stamp
        ):
            return
        if self.feedback is not None and now > self.feedback_time:
            self.gripper_velocity = float(feedback.positions[6] - self.feedback.positions[6]) / (
                now - self.feedback_time
            )
        self.feedback = feedback
        self.feedback_time = now

    def _situation(self) -> Situation:
        now = self._now or 0.0
        return Situation(
            self.feedback,
            self.feedback_age,
            self.config.feedback_timeout,
            self._missing,
            ages={frame: now - time for frame, time in self._risen.items()},
            firmware=self.firmware,
            arm_limits=self.arm_limits,
            foreign_writer=self.foreign_writer,
            strict=self.strict,
        )

    def _chunk_end(self) -> float:
        assert self._timeline.chunk is not None
        return self._timeline.chunk.end

    def _fault(self, reason: str) -> None:
        self._enter(State.FAULT, reason)
        self.last_fault = reason

    def _enter(self, state: State, reason: str) -> None:
        self.state = state
        self.reason = reason
        self.stopped_short = False
        if state is not State.EXECUTING:
            self._timeline.clear()
            self._unsent_chunk = None
        if state is State.FAULT:  # requests remain in force after the fault
            self._hold_requested |= self._disable_when_at_rest
            self._disable_when_at_rest = False
        elif state in (State.DISABLED, State.ENABLING):
            self._hold_requested = self._disable_when_at_rest = False
