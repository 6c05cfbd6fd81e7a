"""What the policy node does when the arm cannot or does not execute its chunks, and when it is
stopped itself. A stand-in publishes the arm's status.
"""

import signal
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from action_msgs.msg import GoalStatus
from alam_msgs.msg import ArmStatus
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from policy_world import TASK, World
from test_platform_cli import ALAM
from tiny_checkpoints import save_tiny_policy

from alam_common.messages import ns_to_stamp
from alam_common.processes import ChildProcess
from alam_core.types import ActionChunk
from alam_piper.controller import ArmController, ControllerConfig
from alam_policy.arm import refuses
from alam_policy.execution import Execution


class Arm:
    """Publishes the status of an arm, with the world's time, each time the world ticks."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.state, self.reason = "HOLDING", "enabled, no chunk yet"
        self.takes_chunks = True
        self.is_heard = True
        self.rejected = 0
        self._status = world.ros.node.create_publisher(ArmStatus, "/alam/arm/status", 50)
        self._diagnostics = world.ros.node.create_publisher(DiagnosticArray, "/diagnostics", 10)
        ready = (self._status, self._diagnostics)
        world.ros.wait_for(lambda: all(p.get_subscription_count() for p in ready), what="the arm")

    def tick(self) -> None:
        self.world.tick()
        if not self.is_heard:
            return
        state, reason, sequence = self.state, self.reason, 0
        if self.world.chunks and self.takes_chunks and state == "HOLDING":
            state, reason, sequence = "EXECUTING", "", self.world.chunks[-1].sequence
        message = ArmStatus(state=state, reason=reason, sequence=sequence)
        message.header.stamp = ns_to_stamp(self.world.now)
        self._status.publish(message)
        values = {"chunks_rejected": str(self.rejected), "last_rejection": "1.2 s old"}
        pairs = [KeyValue(key=key, value=value) for key, value in values.items()]
        status = DiagnosticStatus(name="arm_controller", values=pairs)
        self._diagnostics.publish(DiagnosticArray(status=[status]))


@pytest.fixture
def arm(ros, start_node: Callable, tmp_path: Path) -> Arm:
    save_tiny_policy(tmp_path / "policy")
    parameters = {"checkpoint": str(tmp_path / "policy"), "use_sim_time": True, "max_ignored": 4}
    world = World(ros)
    world.process = start_node("alam_policy", "policy", parameters)  # type: ignore[attr-defined]
    world.wait_until_connected()
    return Arm(world)


def aborted(arm: Arm, goal, again: Callable | None = None) -> str:
    """The reason why the goal is aborted, while the arm ticks."""
    answer = arm.world.result(goal, again=again or arm.tick)
    assert answer.status == GoalStatus.STATUS_ABORTED and not answer.result.success
    return answer.result.reason


def executing(arm: Arm):
    """A goal whose chunks the arm executes."""
    goal, sent = arm.world.send_goal(time_limit=1000.0), len(arm.world.chunks)
    for _ in range(3):
        arm.tick()
    arm.world.ros.wait_for(lambda: len(arm.world.chunks) > sent, what="a chunk")
    arm.tick()
    return goal


def test_a_goal_ends_at_once_if_the_arm_cannot_carry_it_out(arm: Arm) -> None:
    for state, reason in (("DISABLED", "not enabled yet"), ("FAULT", "joint2: no feedback")):
        arm.state, arm.reason = state, reason
        goal, began = arm.world.send_goal(time_limit=1000.0), arm.world.now
        assert aborted(arm, goal) == f"the arm is {state}: {reason}"
        assert arm.world.now - began < 2e9  # a tick takes 0.1 s

    arm.state, arm.reason = "HOLDING", "enabled, no chunk yet"
    faults = (("FAULT", "collision"), ("HOLDING", "hold by request; call alam/arm/enable to go on"))
    for state, reason in faults:
        goal, sent = executing(arm), len(arm.world.chunks)
        arm.state, arm.reason, arm.takes_chunks, began = state, reason, False, arm.world.now
        assert f"the arm is {state}: {reason}" in aborted(arm, goal)
        assert arm.world.now - began < 2e9 and len(arm.world.chunks) <= sent + 1
        arm.state, arm.reason, arm.takes_chunks = "HOLDING", "enabled, no chunk yet", True

    goal = executing(arm)
    arm.is_heard = False
    assert "no status of the arm for 1." in aborted(arm, goal)


def test_a_goal_ends_if_the_arm_executes_none_of_its_chunks(arm: Arm) -> None:
    arm.takes_chunks = False
    goal = arm.world.send_goal(time_limit=1000.0)

    def reject() -> None:
        arm.rejected = len(arm.world.chunks)
        arm.tick()

    reason = aborted(arm, goal, reject)
    assert reason == "the arm does not execute the last 4 of 4 chunks (1.2 s old)"
    warnings = [message.warning for message in arm.world.feedback if message.warning]
    assert any("the arm does not execute the last" in warning for warning in warnings)
    assert arm.world.says("waiting for a goal") or arm.world.says("the arm does not execute")


def test_without_an_arm_status_a_goal_runs_and_its_result_says_so(arm: Arm) -> None:
    arm.is_heard = False
    goal = arm.world.send_goal(time_limit=1.0)
    reason = aborted(arm, goal)
    assert "not done within 1.0 s" in reason and "no arm reported on /alam/arm/status" in reason


def test_a_policy_node_that_is_stopped_ends_its_goal(
    arm: Arm, start: Callable[..., ChildProcess]
) -> None:
    run = start("run", [ALAM, "run", TASK, "--time_limit", "1000"])
    arm.world.ros.wait_for(
        lambda: any("chunks" in line for line in run.lines),
        what="alam run",
        again=arm.tick,
        every=0.1,
    )
    policy = arm.world.process  # type: ignore[attr-defined]
    policy.send(signal.SIGINT)
    arm.world.ros.wait_for(lambda: run.poll() is not None, 30, "alam run to end")
    assert run.wait(1) == 1 and "the policy node stops" in run.last_line()
    assert policy.wait(30) == 0 and not any("Traceback" in line for line in policy.lines)


FAILING = """
from alam_common.main import run_node
from alam_core.runtime.runner import PolicyRunner
from alam_policy.policy_node import PolicyNode

class FailingRunner(PolicyRunner):
    def infer(self, observation, generator=0, given=None):
        if observation.instruction != "warm up":
            raise RuntimeError("out of memory")
        return super().infer(observation, generator, given)

run_node(lambda: PolicyNode(load=FailingRunner.from_pretrained))
"""


def test_a_policy_node_that_fails_ends_its_goal(
    ros, start: Callable[..., ChildProcess], tmp_path: Path
) -> None:
    save_tiny_policy(tmp_path / "policy")
    given = ["-p", f"checkpoint:={tmp_path / 'policy'}", "-p", "use_sim_time:=true"]
    process = start("policy", [sys.executable, "-c", FAILING, "--ros-args", *given])
    world = World(ros)
    world.wait_until_connected()
    goal = world.send_goal()
    observed = world.observation()
    answer = world.result(goal, again=lambda: world.observations.publish(observed))
    assert answer.status == GoalStatus.STATUS_ABORTED
    assert "the policy node failed: out of memory" in answer.result.reason
    assert process.wait(30) == 1
    assert "a bug ended the node: RuntimeError: out of memory" in process.last_line()


def test_what_the_arm_says_of_itself_is_understood() -> None:
    """The reasons of the real controller."""
    arm = ArmController(ControllerConfig())
    assert refuses(arm.state, arm.reason)
    arm.state, arm.reason = arm.state.HOLDING, "enabled, no chunk yet"
    assert not refuses(arm.state, arm.reason)
    arm.hold()
    assert "hold by request" in refuses(arm.state, arm.reason)
    arm.enable()
    assert not refuses(arm.state, arm.reason)


def test_only_chunks_of_the_goal_that_had_time_are_ignored_ones() -> None:
    execution = Execution()

    def send(sequence: int, now: float) -> None:
        execution.sent(ActionChunk(np.zeros((8, 7)), 0.1, now - 0.1, sequence=sequence), now)

    send(1, 9.0)
    execution.begin()
    send(2, 10.0)
    execution.reported("HOLDING", 0, 10.2)
    assert execution.ignored() == (0, 0)  # it may still be taken up
    execution.reported("HOLDING", 0, 10.3)
    assert execution.ignored() == (1, 1)
    send(3, 10.3)
    execution.reported("EXECUTING", 3, 10.4)
    assert execution.ignored() == (0, 1)
    send(4, 11.0)
    execution.reported("EXECUTING", 3, 11.3)
    assert execution.ignored() == (1, 2)
    execution.begin()
    assert execution.ignored() == (0, 0)
