"""The controller's state machine, without ROS: feedback, requests and chunks in, one set-point a
tick out.

``now`` is always seconds on the node's clock (ROS time). Set-points are (7,): six joints in rad,
gripper opening in m.

    DISABLED --enable--> ENABLING --powered, seeded--> HOLDING <--chunk / end, hold--> EXECUTING
    DISABLED <--disable, once at rest-- HOLDING
    FAULT <--failed check-- any powered state
    FAULT --reset_fault--> HOLDING, or DISABLED without power

Every stop is a brake at the acceleration limit followed by holding. Motor power is never taken
away.
"""

from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from alam_core.robots.piper import JOINT_LIMITS
from alam_core.runtime.motion import MotionLimits, SetPoint, make_limits
from alam_core.runtime.timeline import Timeline
from alam_core.types import ActionChunk
from alam_piper.checks import HEALTH, POWERED, START, Situation, first_broken
from alam_piper.gate import ChunkGate, ChunkRejected, ChunkRules
from alam_piper.hardware import Feedback


class State(StrEnum):
    DISABLED = "DISABLED"
    ENABLING = "ENABLING"
    HOLDING = "HOLDING"
    EXECUTING = "EXECUTING"
    FAULT = "FAULT"


@dataclass(frozen=True)
class ControllerConfig:
    """Times in s. period: of the loop; a late tick moves the set-point for at most four periods.

    command_timeout: how far the clock may pass a chunk's last row. feedback_timeout: age at which
    feedback is a fault. enable_timeout: for the arm to report power. enable_interval: between two
    requests for it. settle: least time between the first request and the pose that seeds the
    set-point. fade: of a splice.
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
    first_of_chunk: float | None = None  # stamp of the chunk of which this is the first set-point


class ArmController:
    """Call ``tick`` once a period; the other methods are requests and may come at any time between
    ticks.
    """

    def __init__(self, config: ControllerConfig):
        self.config = config
        self.state = State.DISABLED
        self.reason = "not enabled yet"
        self.stopped_short = False  # whether it holds for another reason than the end of a task
        self.last_fault = ""
        self.feedback: Feedback | None = None
        self.feedback_time = -np.inf  # s, when the newest feedback was first seen
        self.gripper_velocity = 0.0  # m/s, from the last two feedbacks
        self.set_point = SetPoint(config.limits)
        self.accepted = 0
        self.rejected = 0
        self.last_rejection = ""
        self.last_chunk_time: float | None = None  # s, when the last chunk was accepted
        self._timeline = Timeline(config.fade)
        self._gate = ChunkGate(config.rules)
        self._now: float | None = None
        self._held_by_request = False
        self._disable_when_at_rest = False
        self._enable_deadline = 0.0
        self._enable_next = 0.0
        self._settled = 0.0
        self._unsent_chunk: float | None = None

    @property
    def now(self) -> float | None:
        """s, time of the last tick; None before the first."""
        return self._now

    @property
    def chunk(self) -> ActionChunk | None:
        """The chunk being executed, None if none is."""
        return self._timeline.chunk

    @property
    def feedback_age(self) -> float:
        """s since new feedback was first seen; infinite before any."""
        return np.inf if self._now is None else self._now - self.feedback_time

    @property
    def feedback_is_fresh(self) -> bool:
        return self.feedback_age <= self.config.feedback_timeout

    # Requests

    def enable(self) -> str | None:
        """Ask for power, or end a hold that was asked for. Returns why it is refused, None if it is
        granted or under way.
        """
        if self.state is State.FAULT:
            return f"in FAULT ({self.reason}); call /alam/arm/reset_fault first"
        if self.state in (State.HOLDING, State.EXECUTING):
            self._held_by_request = self._disable_when_at_rest = False
            if self.state is State.HOLDING:
                self._enter(State.HOLDING, "enabled, no chunk yet")
            return None
        if broken := first_broken(START, self._situation()):
            return broken
        if self.state is State.DISABLED:
            self._enter(State.ENABLING, "waiting for motor power")
            self._start_enabling(self._now or 0.0)
        return None

    def disable(self) -> None:
        """Brake, hold, then send nothing more. Motor power stays: the arm does not drop. In FAULT
        as ``hold``.
        """
        if self.state is State.ENABLING:
            self._enter(State.DISABLED, "disabled by request")
        elif self.state in (State.HOLDING, State.EXECUTING):
            self._enter(State.HOLDING, "disabling: braking")
            self._disable_when_at_rest = True
        elif self.state is State.FAULT:
            self._held_by_request = True

    def hold(self, reason: str = "hold by request") -> None:
        """Brake and hold; chunks are refused until ``enable`` is called, beyond a FAULT as well.
        Ends an enabling under way.
        """
        if self.state is State.ENABLING:
            self._enter(State.DISABLED, f"not enabled: {reason}")
        elif self.state is State.FAULT:
            self._held_by_request = True
        elif self.state is not State.DISABLED:
            self._enter(State.HOLDING, f"{reason}; call /alam/arm/enable to go on")
            self._held_by_request = self.stopped_short = True

    def pause(self, reason: str) -> None:
        """Brake and hold until the next valid chunk."""
        if self.state is State.EXECUTING:
            self._enter(State.HOLDING, reason)
            self.stopped_short = True

    def reset_fault(self) -> str | None:
        """Leave FAULT: for HOLDING at the measured pose, or without power or CAN mode for DISABLED,
        as only ``enable`` asks for those.

        Returns why not, if the cause persists or the arm still brakes.
        """
        if self.state is not State.FAULT:
            return None
        if broken := first_broken(START, self._situation()):
            self.reason = broken
            return f"still broken: {broken}"
        if not self.set_point.at_rest:
            return "still braking, try again"
        if broken := first_broken(POWERED, self._situation()):
            self._enter(State.DISABLED, f"fault reset, but {broken}; call /alam/arm/enable")
            return None
        assert self.feedback is not None
        self.set_point.seed(self.feedback.positions)
        self._enter(
            State.HOLDING,
            "fault reset" + ("; call /alam/arm/enable to go on" if self._held_by_request else ""),
        )
        self.stopped_short = self._held_by_request
        return None

    def offer(self, chunk: ActionChunk) -> None:
        """Execute a chunk from now on. Raises ChunkRejected with the reason."""
        if self.state not in (State.HOLDING, State.EXECUTING) or self._now is None:
            raise ChunkRejected(f"arm is {self.state} ({self.reason})")
        if self._held_by_request or self._disable_when_at_rest:
            raise ChunkRejected(f"arm is held ({self.reason})")
        self._gate.admit(chunk, self._now, self.state is State.EXECUTING)
        self._timeline.splice(chunk, self._now, self.set_point.position)
        self._enter(State.EXECUTING, "executing a chunk")
        self._unsent_chunk = chunk.stamp
        self.accepted += 1
        self.last_chunk_time = self._now

    def refuse(self, reason: str) -> None:
        """Count a chunk as refused."""
        self.rejected += 1
        self.last_rejection = reason

    def _start_enabling(self, now: float) -> None:
        self._enable_next = now
        self._enable_deadline = now + self.config.enable_timeout
        # Infinite until power and mode were requested: the arm may be powered in another mode or
        # at another speed.
        self._settled = np.inf

    # The loop

    def tick(self, now: float, feedback: Feedback | None) -> Output:
        """One period: take in the feedback, check, and decide what is sent."""
        dt = self._advance(now)
        self._take(feedback, now)
        if self.state is State.DISABLED:
            return Output()
        if self.state is State.ENABLING:
            return self._tick_enabling(now)
        if self.state is not State.FAULT:
            if broken := first_broken(HEALTH + POWERED, self._situation()):
                self._fault(broken)
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
        if broken := first_broken(START, situation):
            self._enter(State.DISABLED, f"not enabled: {broken}")
            return Output()
        waiting = first_broken(POWERED, situation)
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
        """HOLDING or FAULT: brake; at rest HOLDING goes on sending, while disabling and FAULT fall
        silent.

        The firmware holds the last set-point. Silence in FAULT means that an arm which someone
        moves or repowers meanwhile does not jump back.
        """
        silent = self.state is State.FAULT or self._disable_when_at_rest
        if self.set_point.at_rest and silent:
            if self._disable_when_at_rest:
                self._disable_when_at_rest = False
                self._enter(State.DISABLED, "disabled by request, motors stay powered")
            return Output()
        return Output(set_point=self.set_point.brake(dt))

    def _advance(self, now: float) -> float:
        """Time to move for: none on the first tick or when the clock jumped back, and never much
        more than a period.
        """
        before, self._now = self._now, now
        if before is None:
            return 0.0
        if now < before:
            self.feedback_time = min(self.feedback_time, now)
            self._gate.forget()
            self.pause(f"clock jumped back by {before - now:.3f} s")
            self._start_enabling(now)
            return 0.0
        return min(now - before, 4.0 * self.config.period)

    def _take(self, feedback: Feedback | None, now: float) -> None:
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
        return Situation(self.feedback, self.feedback_age, self.config.feedback_timeout)

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
        if state is State.FAULT:  # what was asked for outlasts it
            self._held_by_request |= self._disable_when_at_rest
            self._disable_when_at_rest = False
        elif state in (State.DISABLED, State.ENABLING):
            self._held_by_request = self._disable_when_at_rest = False
