"""The whole graph as real processes: it carries out a goal; when a part of it fails, the arm holds,
the reason is reported and nothing hangs.
"""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from action_msgs.msg import GoalStatus
from alam_msgs.action import ExecuteTask
from alam_msgs.msg import ActionChunk, LatentTransition, Observation, TaskStatus
from alam_msgs.srv import ResetWorld
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from rclpy.action import ActionClient
from sensor_msgs.msg import JointState
from std_srvs.srv import SetBool
from tiny_checkpoints import save_tiny_policy, save_tiny_transition

from alam_bringup.graph import PIPER
from alam_core.types import VIEWS


class Operator:
    """Operates the running graph as a person would: starts episodes, reads diagnostics."""

    def __init__(self, ros, can_port: int, folder: Path) -> None:
        self.ros = ros
        save_tiny_policy(folder / "policy", turn=0.15)
        save_tiny_transition(folder / "transition")
        self.arguments = {
            "checkpoint": str(folder / "policy"),
            "encoder": str(folder / "transition"),
            "can_udp_port": str(can_port),
            "speed": "0",
        }
        self.joints: list[JointState] = ros.collect(JointState, "/joint_states")
        self.chunks: list[ActionChunk] = ros.collect(ActionChunk, "/alam/action_chunk")
        self.latents: list[LatentTransition] = ros.collect(LatentTransition, "/alam/latents", 50)
        self.observations: list[Observation] = ros.collect(Observation, "/alam/observation")
        self.status: list[TaskStatus] = ros.collect(TaskStatus, "/alam/task_status")
        self.diagnostics: dict[str, str] = {}
        ros.node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 50)
        self.client = ActionClient(ros.node, ExecuteTask, "/alam/execute_task")

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            self.diagnostics[status.name] = status.message

    def diagnosed(self, node: str, text: str) -> None:
        """Wait until the message in a node's diagnostics contains ``text``."""
        self.ros.wait_for(
            lambda: text in self.diagnostics.get(node, ""),
            timeout=60,
            what=f"'{text}' in the diagnostics of {node}",
        )

    def start_episode(self, seed: int, time_limit: float = 60.0):
        """Reset the world, enable the arm, send the goal and wait until the arm moves. Returns the
        goal's handle.
        """
        ros = self.ros
        ros.wait_for(self.client.server_is_ready, timeout=120, what="the policy")
        ros.call(SetBool, "/alam/arm/enable", SetBool.Request(data=False), timeout=60)
        reset = ros.call(ResetWorld, "/alam/sim/reset", ResetWorld.Request(seed=seed))
        assert reset.success

        def enabled() -> bool:
            return ros.call(SetBool, "/alam/arm/enable", SetBool.Request(data=True)).success

        ros.wait_for(enabled, timeout=60, what="the arm to be enabled")
        goal = ExecuteTask.Goal(instruction=reset.instruction, time_limit=time_limit)
        handle = ros.send_goal(self.client, "/alam/execute_task", goal)
        assert handle.accepted
        sent = len(self.chunks)
        ros.wait_for(lambda: len(self.chunks) > sent + 1, timeout=60, what="chunks")
        ros.wait_for(self.moving, what="the arm to move")
        return handle

    def moving(self) -> bool:
        return bool(self.joints) and abs(self.joints[-1].velocity[0]) > 0.05

    def arm_holds(self) -> None:
        """Wait until the controller is in HOLDING and the arm is at rest."""
        self.diagnosed("arm_controller", "HOLDING")
        self.ros.wait_for(lambda: not self.moving(), what="the arm to rest")

    def mute(self, view: str) -> None:
        value = ParameterValue(type=ParameterType.PARAMETER_STRING, string_value=view)
        request = SetParameters.Request(parameters=[Parameter(name="muted_views", value=value)])
        assert self.ros.call(SetParameters, "/sim/set_parameters", request).results[0].successful


@pytest.fixture
def operator(ros, can_udp_port: int, tmp_path: Path) -> Operator:
    return Operator(ros, can_udp_port, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_arm_holds_and_reports_why_when_any_part_fails(
    start_node: Callable, ros, operator: Operator
) -> None:
    nodes = PIPER.build(PIPER.values(operator.arguments))
    processes = {
        node.name: start_node(node.package, node.executable, node.parameters, name=node.name)
        for node in nodes
    }

    goal = operator.start_episode(seed=1)
    served = len(operator.observations)
    ros.wait_for(
        lambda: len(operator.observations) >= served + 20, timeout=120, what="observations"
    )
    ros.wait_for(lambda: len(operator.latents) >= 20, timeout=120, what="latents")
    assert {latent.view for latent in operator.latents} == set(VIEWS)
    assert not any(observation.skewed for observation in operator.observations[served:])
    assert all(status.seed == 1 for status in operator.status[-5:])

    # A camera stops: the goal is aborted and the arm holds. The camera returns: see the next goal.
    operator.mute("wrist")
    operator.diagnosed("camera_sync", "wrist")
    result = goal.get_result_async()
    ros.wait_for(result.done, timeout=60, what="the goal's end")
    assert result.result().status == GoalStatus.STATUS_ABORTED
    assert "no observation" in result.result().result.reason
    operator.arm_holds()
    operator.mute("")
    operator.diagnosed("camera_sync", "serving")

    # The policy is killed: the arm holds, the other nodes continue.
    operator.start_episode(seed=2)
    processes["policy"].send(signal.SIGKILL)
    operator.arm_holds()
    operator.diagnosed("arm_controller", "the last chunk ended")
    operator.diagnosed("sim", "no longer waiting for policy")
    served = len(operator.observations)
    ros.wait_for(
        lambda: len(operator.observations) >= served + 5,
        timeout=60,
        what="observations without the policy",
    )

    # The policy is started again, and the arm accepts its chunks.
    policy = next(node for node in nodes if node.name == "policy")
    processes["policy"] = start_node(
        policy.package, policy.executable, policy.parameters, name="policy"
    )
    ros.wait_for(
        lambda: not operator.client.server_is_ready() or processes["policy"].poll() is None,
        what="the new policy",
    )
    ros.wait_for(
        lambda: "waiting for a goal" in operator.diagnostics.pop("policy", ""),
        timeout=120,
        what="the new policy",
    )
    goal = operator.start_episode(seed=3)

    # The simulator is killed: the goal is aborted, the controller reports that time stands still.
    processes["sim"].send(signal.SIGKILL)
    result = goal.get_result_async()
    ros.wait_for(result.done, timeout=60, what="the goal's end")
    assert "simulator" in result.result().result.reason
    operator.diagnosed("arm_controller", "no ROS time")

    # Ctrl-C ends the remaining nodes.
    left = [process for name, process in processes.items() if name != "sim"]
    for process in left:
        process.send(signal.SIGINT)
    for process in left:
        assert process.wait(120) == 0, f"{process.name}: {process.last_line()}"
        assert not any("Traceback" in line for line in process.lines), process.name


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_alam_up_runs_the_graph_and_ctrl_c_leaves_no_process(
    start: Callable, ros, operator: Operator
) -> None:
    up = start(
        "up",
        [
            "alam",
            "up",
            "piper",
            *(f"{name}:={value}" for name, value in operator.arguments.items()),
        ],
    )
    operator.start_episode(seed=1)
    children = Path(f"/proc/{up.pid}/task/{up.pid}/children").read_text().split()
    assert len(children) == 5
    os.kill(up.pid, signal.SIGINT)
    assert up.wait(60) == 0
    assert not any(Path(f"/proc/{child}").exists() for child in children)
    assert not any("Traceback" in line for line in up.lines)
