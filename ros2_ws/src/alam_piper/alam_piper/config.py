"""Settings of the controller, as the state machine needs them, without ROS."""

from dataclasses import dataclass, field

from alam_core.robots.piper import JOINT_LIMITS
from alam_core.robots.workspace import Workspace
from alam_core.runtime.motion import MotionLimits, make_limits
from alam_piper.gate import ChunkRules


@dataclass(frozen=True)
class ControllerConfig:
    """Settings of the controller. Times are in s.

    limits: of the set-point. workspace: where the arm may be; None: anywhere. rules: for accepting
    chunks. period: of the loop.

    Two watchdogs supervise the chunks while one is executed; both hold the arm. command_timeout:
    time after a chunk's last row. chunk_timeout: time since the newest chunk was accepted, which
    ends a long chunk whose publisher has stopped.

    feedback_timeout: age of any kind of feedback frame that is a fault. max_tracking_error: rad
    that a joint may be away from its set-point; further away for ``feedback_timeout`` is a fault.
    enable_timeout: how long to wait for the arm to report power. enable_interval: between two
    requests for power. settle: least time between the first request and the feedback that the
    set-point starts from. fade: duration of the transition from one chunk to the next. release:
    time in HOLDING after which another source of chunks may take over. strict: whether the arm must
    have told its firmware and limits before it is enabled.
    """

    limits: MotionLimits = field(default_factory=lambda: make_limits(JOINT_LIMITS))
    workspace: Workspace | None = field(default_factory=Workspace)
    rules: ChunkRules = ChunkRules()
    period: float = 0.005
    command_timeout: float = 0.2
    chunk_timeout: float = 3.0
    feedback_timeout: float = 0.1
    max_tracking_error: float = 0.3
    enable_timeout: float = 5.0
    enable_interval: float = 0.1
    settle: float = 0.05
    fade: float = 0.15
    release: float = 1.0
    strict: bool = True
