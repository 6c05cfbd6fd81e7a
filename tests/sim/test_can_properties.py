"""Whatever is published, requested, lost or delayed: the controller's set-points keep every limit,
nothing is sent without permission, and every refusal has a reason. Without hardware.
"""

from dataclasses import dataclass, field

import numpy as np
from can_rig import HOME, PERIOD, make_chunk
from hypothesis import given, settings
from hypothesis import strategies as st

from alam_core.robots.piper import JOINT_LIMITS, JOINT_NAMES, MAX_ACCELERATION, MAX_VELOCITY
from alam_core.robots.workspace import Workspace
from alam_core.runtime.motion import make_limits
from alam_piper.config import ControllerConfig
from alam_piper.controller import STALL_PERIODS, ArmController
from alam_piper.feedback_watch import Reading
from alam_piper.frames import FEEDBACK_FRAMES
from alam_piper.gate import ChunkRejected, parse_chunk
from alam_piper.hardware import CTRL_MODE_CAN, MOVE_J, Feedback
from alam_piper.startup import ArmLimits
from alam_piper.states import State

LIMITS = make_limits(JOINT_LIMITS)
WORKSPACE = Workspace()
FRAMES = tuple(FEEDBACK_FRAMES)
FIRMWARE_LIMITS = ArmLimits(
    JOINT_LIMITS[:, 0], JOINT_LIMITS[:, 1], np.full(6, MAX_VELOCITY), np.full(6, MAX_ACCELERATION)
)


@dataclass
class Arm:
    """A perfect arm that reports what it is told to report."""

    position: np.ndarray = field(default_factory=lambda: np.append(HOME, 0.05))
    powered: bool = False
    stuck: bool = False
    status: int = 0
    lost: frozenset[int] = frozenset()
    foreign_writer: str = ""
    counts: list[int] = field(default_factory=lambda: [0] * len(FRAMES))
    seen: Feedback | None = None

    def reading(self) -> Reading:
        """The next reading: what is lost stays as it was."""
        for i, frame in enumerate(FRAMES):
            self.counts[i] += frame not in self.lost
        if not all(self.counts):
            return Reading(missing="frames are missing")
        known = self.seen
        pairs = [(0x2A5, 0), (0x2A5, 1), (0x2A6, 2), (0x2A6, 3), (0x2A7, 4), (0x2A7, 5), (0x2A8, 6)]
        positions = self.position.copy()
        for frame, joint in pairs:
            if known is not None and frame in self.lost:
                positions[joint] = known.positions[joint]
        status_lost = known is not None and 0x2A1 in self.lost
        self.seen = Feedback(
            float(sum(self.counts)),
            positions,
            np.zeros(6),
            known.ctrl_mode if status_lost and known else CTRL_MODE_CAN * self.powered,
            known.arm_status if status_lost and known else self.status,
            0,
            tuple(
                known.drivers_enabled[i]
                if known is not None and 0x261 + i in self.lost
                else self.powered
                for i in range(6)
            ),
            (),
            counts=tuple(self.counts),
            move_mode=MOVE_J,
        )
        return Reading(self.seen, "", "S-V1.8-2", FIRMWARE_LIMITS, self.foreign_writer)


class Bench:
    """Steps a controller with an arm, and checks every tick."""

    def __init__(self) -> None:
        self.arm = Arm()
        self.controller = ArmController(
            ControllerConfig(limits=LIMITS, workspace=WORKSPACE), self.told
        )
        self.now = 50.0
        self.may_send = False  # whether ``enable`` has been granted since the arm was last silent
        self.sequence = 0
        self.previous: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None

    def told(self, line: str) -> None:
        assert line.split(": ", 1)[1].strip(), line

    def request(self, name: str) -> None:
        refused = getattr(self.controller, name)()
        assert refused is None or refused.strip()
        if name == "enable" and refused is None:
            self.may_send = True
        if name == "power_off" and refused is None:
            self.arm.powered = False

    def offer(self, source: str, step: int, age: float, dt: float, rows: np.ndarray) -> None:
        self.sequence = max(0, self.sequence + step)
        counted = self.controller.rejected
        try:
            chunk = parse_chunk(
                self.now - age, self.sequence, JOINT_NAMES, dt, len(rows), rows.ravel().tolist()
            )
            self.controller.offer(chunk, source)
        except ChunkRejected as reason:
            assert str(reason).strip() and "\n" not in str(reason)
            self.controller.count_rejected(str(reason))
            assert self.controller.rejected == counted + 1

    def tick(self, gap: float = PERIOD) -> None:
        controller = self.controller
        before, was_at_rest = controller.state, controller.set_point.at_rest
        self.now += gap
        output = controller.tick(self.now, self.arm.reading())
        assert controller.reason.strip()
        stalled = gap > STALL_PERIODS * PERIOD + 1e-9
        if output.enable:
            assert controller.state is State.ENABLING and self.may_send
            self.arm.powered = True
        if output.set_point is None:
            self.previous = None
            if controller.state is State.DISABLED:
                self.may_send = False
            return
        assert self.may_send and controller.state not in (State.DISABLED, State.ENABLING)
        if before is State.FAULT:
            assert not was_at_rest, "FAULT sends nothing once at rest"
        self.check(output.set_point, PERIOD if stalled else gap, stalled)
        if before is State.ENABLING:
            assert np.abs(output.set_point - self.arm.position).max() < 1e-9, "a jump at enabling"
        if not self.arm.stuck and self.arm.powered:
            self.arm.position = output.set_point.copy()

    def check(self, point: np.ndarray, dt: float, stalled: bool) -> None:
        """The set-point keeps its limits, also from one tick to the next."""
        set_point, limits = self.controller.set_point, LIMITS
        assert (point >= limits.lower - 1e-9).all() and (point <= limits.upper + 1e-9).all()
        assert (np.abs(set_point.velocity) <= limits.velocity * (1 + 1e-6)).all()
        assert (np.abs(set_point.acceleration) <= limits.acceleration * (1 + 1e-6)).all()
        if self.previous is not None:
            last, velocity, acceleration = self.previous
            if stalled:
                velocity, acceleration = np.zeros(7), np.zeros(7)
            step = np.abs(point - last)
            assert (step <= limits.velocity * dt * (1 + 1e-6) + 1e-9).all()
            change = np.abs(set_point.velocity - velocity)
            assert (change <= limits.acceleration * dt * (1 + 1e-6) + 1e-9).all()
            change = np.abs(set_point.acceleration - acceleration)
            assert (change <= limits.jerk * dt * (1 + 1e-6) + 1e-9).all()
            allowed = max(float(WORKSPACE.depth(last[None])[0]), 0.0)
            assert float(WORKSPACE.depth(point[None])[0]) <= allowed + 1e-9
        self.previous = (point.copy(), set_point.velocity.copy(), set_point.acceleration.copy())

    def run(self, ticks: int) -> None:
        for _ in range(ticks):
            self.tick()


REQUESTS = ("enable", "enable", "disable", "hold", "reset_fault", "power_off")
ODD = (np.nan, np.inf, -np.inf, 1e308, -1e308, 5e-324, 0.0, -1.0, 1e6)
EVENTS = {  # what happens -> how often
    "move": 10,
    "repair": 4,
    "run": 3,
    "chunk": 3,
    "request": 3,
    "stall": 2,
    "lose": 2,
    "status": 1,
    "power": 1,
    "stuck": 1,
    "writer": 1,
    "push": 1,
    "clock back": 1,
    "garbage": 1,
}


def happen(bench: Bench, kind: str, rng: np.random.Generator) -> None:
    """Let one event happen to a bench."""
    arm, controller = bench.arm, bench.controller
    here = controller.set_point.position
    if kind == "run":
        bench.run(int(rng.integers(1, 40)))
    elif kind == "stall":
        bench.tick(rng.choice([rng.uniform(0.0, 0.019), rng.uniform(0.021, 2.0)]))
    elif kind == "clock back":
        bench.previous = None
        bench.now -= rng.uniform(0.0, 5.0)
        bench.tick(0.0)
    elif kind == "move":  # valid chunks one after another, towards a random pose, often too low
        goal = rng.uniform(LIMITS.lower, LIMITS.upper)
        goal[1] += rng.choice([0.0, 1.5])
        for _ in range(rng.integers(1, 5)):
            here = controller.set_point.position
            way = np.linspace(0.1, 1.0, 12)[:, None] * (goal - here) * rng.uniform(0.1, 1.0)
            bench.offer("a", 1, 0.05, 0.1, here + way)
            bench.run(int(rng.integers(10, 60)))
    elif kind == "chunk":
        scale = rng.choice([0.02, 0.3, 3.0, 1e300])
        walk = rng.normal(0.0, scale, (int(rng.integers(1, 20)), 7)) * ([1.0] * 6 + [0.1])
        source, step = str(rng.choice(["a", "b", ""])), int(rng.choice([1, 1, 0, -3, 2**62]))
        dt = float(rng.choice([0.02, 0.1, 1.0, *ODD]))
        bench.offer(source, step, rng.uniform(-0.2, 1.2), dt, here + walk)
    elif kind == "garbage":
        bench.offer("a", 1, 0.0, 0.1, np.full((4, 7), rng.choice(ODD)))
    elif kind == "request":
        bench.request(str(rng.choice(REQUESTS)))
    elif kind == "lose":
        arm.lost = frozenset(rng.choice(FRAMES, rng.integers(1, 4)).tolist())
    elif kind == "repair":
        arm.lost, arm.status, arm.stuck, arm.foreign_writer = frozenset(), 0, False, ""
        bench.run(30)
        bench.request("reset_fault")
        bench.request("enable")
        bench.run(25)
    elif kind == "status":
        arm.status = int(rng.choice([0, 1, 7]))
    elif kind == "power":
        arm.powered = bool(rng.integers(2))
    elif kind == "stuck":
        arm.stuck = True
    elif kind == "writer":
        arm.foreign_writer = "another program sends commands"
    elif kind == "push":
        moved = arm.position.copy()
        moved[rng.integers(6)] += rng.uniform(-0.4, 0.4)
        arm.position = np.clip(moved, LIMITS.lower, LIMITS.upper)


@settings(derandomize=True, deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 2**32 - 1), min_size=15, max_size=30))
def test_no_sequence_of_events_breaks_a_guarantee(seeds: list[int]) -> None:
    """Each seed makes one event, together with its place in the list."""
    bench = Bench()
    bench.run(20)
    kinds, weights = list(EVENTS), np.array(list(EVENTS.values())) / sum(EVENTS.values())
    for i, seed in enumerate(seeds):
        rng = np.random.default_rng([seed, i])
        happen(bench, str(rng.choice(kinds, p=weights)), rng)
    bench.run(20)


def test_the_bench_moves_the_arm() -> None:
    """Else the property above would hold for a controller that does nothing."""
    bench = Bench()
    bench.run(25)
    bench.request("enable")
    bench.run(25)
    goal = bench.arm.position + 0.1
    rows = np.linspace(bench.arm.position, goal, 8)
    bench.controller.offer(make_chunk(bench.now, 1, 0.1, rows), "a")
    bench.run(150)
    assert bench.controller.state is State.EXECUTING
    assert np.abs(bench.arm.position[:6] - goal[:6]).max() < 0.03
