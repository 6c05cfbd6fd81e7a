"""The controller's state machine, without ROS: it takes feedback, requests and chunks, and returns
one set-point per tick.

``now`` is always the time in s on the node's clock (ROS time). Set-points are (7,): six joints in
rad, gripper opening in m.

    DISABLED --enable--> ENABLING --powered, seeded--> HOLDING <--chunk / end, hold--> EXECUTING
    DISABLED <--disable, once at rest-- HOLDING
    FAULT <--failed check-- any powered state
    FAULT --reset_fault--> HOLDING, or DISABLED without power or after an emergency stop; either way
    nothing moves before the next ``enable``

To stop, the arm brakes within its limits and then holds. Motor power is cut by ``power_off`` only.
"""

from collections.abc import Callable

import numpy as np

from alam_core.runtime.motion import SetPoint
from alam_core.runtime.timeline import Timeline
from alam_core.types import ActionChunk
from alam_piper.checks import ESTOP, FEEDBACK, HEALTH, POWERED, START, Situation, first_failure
from alam_piper.config import ControllerConfig
from alam_piper.feedback_watch import FeedbackWatch, Reading
from alam_piper.gate import ChunkGate, ChunkRejected, beyond_limits
from alam_piper.hardware import Feedback
from alam_piper.states import Output, State
from alam_piper.tracking import TrackingMonitor

STALL_PERIODS = 4.0  # periods without a tick after which the loop counts as stalled


class ArmController:
    """The state machine. Call ``tick`` once per period; the other methods are requests, which may
    be called at any time between ticks.

    on_transition: called with one line for each change of the state, and of the reason for it.
    """

    def __init__(
        self, config: ControllerConfig, on_transition: Callable[[str], None] = lambda _: None
    ):
        self.config = config
        self.state = State.DISABLED
        self.reason = "not enabled yet"
        self.stopped_short = False  # whether the arm holds by request or after a problem
        self.last_fault = ""
        self.watch = FeedbackWatch(config.feedback_timeout)
        self.tracking = TrackingMonitor(config.max_tracking_error, config.feedback_timeout)
        self.set_point = SetPoint(config.limits, config.workspace)
        self.accepted = 0
        self.rejected = 0
        self.last_rejection = ""
        self.last_rejection_time = -np.inf  # s
        self.last_chunk_time: float | None = None  # s, when the last chunk was accepted
        self.stalls = 0  # how often the loop stood still for more than STALL_PERIODS
        self.longest_stall = 0.0  # s
        self._on_transition = on_transition
        self._reading = Reading()
        self._timeline = Timeline(config.fade)
        self._gate = ChunkGate(config.rules)
        self._now: float | None = None
        self._entered = -np.inf  # s, when the present state was entered
        self._stopped_by_estop = False
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
    def feedback(self) -> Feedback | None:
        """The newest feedback."""
        return self.watch.feedback

    @property
    def chunk(self) -> ActionChunk | None:
        """The chunk being executed, None if none is."""
        return self._timeline.chunk

    @property
    def blocked(self) -> str:
        """Why the set-point does not go where the chunk being executed asks; "" if it does."""
        return self.set_point.blocked if self.state is State.EXECUTING else ""

    @property
    def explanation(self) -> str:
        """The reason for the state, and what blocks the set-point."""
        return f"{self.reason}; {self.blocked}" if self.blocked else self.reason

    @property
    def clamped(self) -> str:
        """Which joints the chunk being executed asks to go beyond their limits; "" if none."""
        return beyond_limits(self.chunk, self.config.limits) if self.chunk else ""

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
                self._gate.forget()
                self._enter(State.HOLDING, "enabled, no chunk yet")
            return None
        if failure := first_failure(START, self._situation()):
            return failure
        if self.state is State.DISABLED:
            self._gate.forget()
            self._enter(State.ENABLING, "waiting for motor power")
            self._start_enabling(self._now or 0.0)
        return None

    def disable(self) -> None:
        """Brake, hold, then stop sending. The motors stay powered, so the arm does not drop."""
        if self.state is State.ENABLING:
            self._enter(State.DISABLED, "disabled by request")
        elif self.state in (State.HOLDING, State.EXECUTING):
            self._enter(State.HOLDING, "disabling: braking")
            self._disable_when_at_rest = True

    def hold(self, reason: str = "hold by request") -> None:
        """Brake and hold; chunks are rejected until ``enable`` is called. Cancels enabling in
        progress.
        """
        if self.state is State.ENABLING:
            self._enter(State.DISABLED, f"not enabled: {reason}")
        elif self.state is not State.DISABLED:
            self._enter(State.HOLDING, f"{reason}; call alam/arm/enable to go on")
            self._hold_requested = self.stopped_short = True

    def pause(self, reason: str) -> None:
        """If a chunk is being executed, brake and hold until the next valid chunk."""
        if self.state is State.EXECUTING:
            self._enter(State.HOLDING, reason)
            self.stopped_short = True

    def reset_fault(self) -> str | None:
        """Leave FAULT: to HOLDING at the measured pose, or, if the arm has no power, is not in CAN
        mode or was stopped by its emergency stop, to DISABLED. Chunks are rejected until ``enable``
        is called: a reset must not set the arm in motion.

        Returns the reason if the fault cannot be reset: its cause remains, or the arm still moves.
        """
        if self.state is not State.FAULT:
            return None
        if failure := first_failure(START, self._situation()):
            self._enter(State.FAULT, failure)
            return f"the cause remains: {failure}"
        if not self.set_point.at_rest:
            return "still braking, try again"
        if self._stopped_by_estop:
            self._enter(State.DISABLED, "emergency stop reset; call alam/arm/enable to go on")
            return None
        if failure := first_failure(POWERED, self._situation()):
            self._enter(State.DISABLED, f"fault reset, but {failure}; call alam/arm/enable")
            return None
        if moving := self.watch.motion:  # the set-point starts at rest
            return f"{moving}, try again"
        self._seed()
        self._enter(State.HOLDING, "fault reset; call alam/arm/enable to go on")
        self._hold_requested = self.stopped_short = True
        return None

    def power_off(self) -> str | None:
        """Stop sending, because the power of the motors is about to be cut. Returns the reason if
        that is refused: the arm moves, or may move, or executes chunks.
        """
        if self.state in (State.ENABLING, State.EXECUTING):
            return f"the arm is {self.state}; call alam/arm/hold first"
        if not self.set_point.at_rest:
            return "the arm still brakes, try again"
        if self.feedback is None or not self.watch.is_fresh:
            return f"whether the arm is at rest is unknown: {self.feedback_problem}"
        if moving := self.watch.motion:
            return moving
        self._enter(
            State.FAULT if self.state is State.FAULT else State.DISABLED, "powered off by request"
        )
        return None

    def offer(self, chunk: ActionChunk, source: str) -> None:
        """Start to execute a chunk. Raises ChunkRejected, with the reason, if it must not be.

        source: who published it.
        """
        if self.state not in (State.HOLDING, State.EXECUTING) or self._now is None:
            raise ChunkRejected(f"arm is {self.state} ({self.reason})")
        if self._hold_requested or self._disable_when_at_rest:
            raise ChunkRejected(f"arm is held ({self.reason})")
        self._gate.admit(chunk, source, self._now, self.set_point.position)
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

    # The loop

    def tick(self, now: float, reading: Reading) -> Output:
        """One period of the loop: process what was read from the arm, run the checks, and decide
        what to send.
        """
        dt = self._advance(now, reading)
        if self.state is State.DISABLED:
            return Output()
        if self.state is State.ENABLING:
            return self._tick_enabling(now)
        self._supervise(now, dt)
        if dt <= 0.0:
            return Output()
        if self.state is State.EXECUTING:
            self.set_point.follow(self._timeline.at(now), dt)
            stamp, self._unsent_chunk = self._unsent_chunk, None
            return Output(set_point=self.set_point.position, first_of_chunk=stamp)
        return self._tick_stopped(dt)

    def _advance(self, now: float, reading: Reading) -> float:
        """Take over what was read. Returns the time in s by which the set-point moves in this tick:
        0 on the first tick and when the clock jumped back, one period after a stall.

        The arm has reached its last set-point during a stall, so the set-point starts from rest.
        The age of feedback grows by a few periods only: frames that the loop slept through are not
        missing ones.
        """
        before, self._now = self._now, now
        elapsed = dt = 0.0 if before is None else max(now - before, 0.0)
        if elapsed > STALL_PERIODS * self.config.period:
            self.stalls += 1
            self.longest_stall = max(self.longest_stall, elapsed)
            self.set_point.restart()
            dt = self.config.period
            elapsed = STALL_PERIODS * self.config.period
        self._reading = reading
        self.watch.take(reading.feedback, now, elapsed)
        if before is not None and now < before:
            self._entered = min(self._entered, now)
            self._gate.forget()
            self.pause(f"clock jumped back by {before - now:.3f} s")
            self._start_enabling(now)
        return dt

    def _supervise(self, now: float, dt: float) -> None:
        """Run the checks of a powered arm, and the watchdogs."""
        situation = self._situation()
        if stop := first_failure((ESTOP,), situation):
            if not self._stopped_by_estop:
                self._fault(stop)
                self._stopped_by_estop = True
            return
        if self.state is State.FAULT:
            return
        assert self.feedback is not None
        if failure := first_failure(HEALTH + POWERED, situation) or self.tracking.failure(
            self.set_point.position, self.feedback.positions, dt
        ):
            self._fault(failure)
        elif lost := self._lost_command(now):
            self.pause(lost)
        elif self.state is State.HOLDING and now - self._entered > self.config.release:
            self._gate.forget()

    def _lost_command(self, now: float) -> str | None:
        """Why the chunk being executed must not be executed any longer; None if it may."""
        if self.chunk is None or self.last_chunk_time is None:
            return None
        if (late := now - self.chunk.end) > self.config.command_timeout:
            return f"command: the last chunk ended {late:.3f} s ago"
        if (silence := now - self.last_chunk_time) > self.config.chunk_timeout:
            return f"command: no new chunk for {silence:.3f} s"
        return None

    def _start_enabling(self, now: float) -> None:
        self._enable_next = now
        self._enable_deadline = now + self.config.enable_timeout
        # Infinite until power and mode have been requested, because the arm may already be powered
        # in another mode or with another speed limit.
        self._settled = np.inf

    def _tick_enabling(self, now: float) -> Output:
        situation = self._situation()
        if failure := first_failure(START, situation):
            self._enter(State.DISABLED, f"not enabled: {failure}")
            return Output()
        waiting = first_failure(POWERED, situation)
        if now < self._settled:
            self.watch.mark()
        elif waiting is None and self.watch.all_newer and not self.watch.motion:
            self._seed()
            self._enter(State.HOLDING, "enabled, no chunk yet")
            return Output(set_point=self.set_point.position)
        if now >= self._enable_deadline:
            self._enter(
                State.DISABLED,
                f"not enabled within {self.config.enable_timeout} s: "
                f"{waiting or self.watch.motion or 'no new feedback'}",
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
                self._enter(State.DISABLED, "disabled by request, motors stay powered")
            return Output()
        return Output(set_point=self.set_point.brake(dt))

    def _seed(self) -> None:
        """Start the set-point at rest from the measured pose."""
        assert self.feedback is not None
        self.set_point.seed(self.feedback.positions)
        self.tracking.restart()

    def _situation(self) -> Situation:
        reading = self._reading
        return Situation(
            self.feedback,
            self.watch.age,
            self.config.feedback_timeout,
            reading.missing,
            self.watch.ages,
            reading.firmware,
            reading.arm_limits,
            reading.foreign_writer,
            self.config.strict,
        )

    def _fault(self, reason: str) -> None:
        self._enter(State.FAULT, reason)
        self.last_fault = reason

    def _enter(self, state: State, reason: str) -> None:
        before, known = self.state, self.reason
        self.state, self.reason = state, reason
        self.stopped_short = False
        if state is not before:
            self._entered = -np.inf if self._now is None else self._now
        if state is not State.EXECUTING:
            self._timeline.clear()
            self._unsent_chunk = None
        if state is State.FAULT:  # after it the arm holds until ``enable`` in any case
            self._disable_when_at_rest = False
        else:
            self._stopped_by_estop = False
            if state in (State.DISABLED, State.ENABLING):
                self._hold_requested = self._disable_when_at_rest = False
        if (state, reason) != (before, known):
            self._on_transition(f"{before} -> {state}: {reason}")
