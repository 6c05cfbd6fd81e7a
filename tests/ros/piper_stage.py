"""An emulated arm, an arm controller as a process, and what a test needs to talk to both."""

import numpy as np
from alam_msgs.msg import ActionChunk
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from piper_arm import HOME
from sensor_msgs.msg import JointState
from std_srvs.srv import SetBool

from alam_core.robots.piper import JOINT_NAMES

PATIENCE = 120  # s, for a machine that is busy with other work


class Stage:
    """The emulated arm, the controller process, and helpers to communicate with them."""

    def __init__(self, ros, arm, process):
        self.ros, self.arm, self.process = ros, arm, process
        self.chunks = ros.node.create_publisher(ActionChunk, "/alam/action_chunk", 10)
        self.joint_states = ros.collect(JointState, "/joint_states")
        self.diagnostics = ros.collect(DiagnosticArray, "/diagnostics")
        self.sequence = 0
        ros.wait_for(lambda: self.joint_states, PATIENCE, "joint states of the emulated arm")
        ros.wait_for(
            lambda: "arm is DISABLED" in self.value("last_rejection"),
            PATIENCE,
            "the controller to hear a chunk",
            again=lambda: self.chunks.publish(self.chunk(HOME)),
        )

    def status(self) -> DiagnosticStatus | None:
        found = [
            status
            for array in self.diagnostics
            for status in array.status
            if status.name == "arm_controller"
        ]
        return found[-1] if found else None

    def value(self, key: str) -> str:
        status = self.status()
        return (
            next((value.value for value in status.values if value.key == key), "") if status else ""
        )

    def wait_for_value(self, key: str, part: str) -> None:
        self.ros.wait_for(lambda: part in self.value(key), 30, f"'{part}' in {key} of /diagnostics")

    def enable(self, on: bool = True):
        return self.ros.call(SetBool, "/alam/arm/enable", SetBool.Request(data=on), PATIENCE)

    def chunk(
        self,
        joints: np.ndarray,
        gripper: float = 0.05,
        steps: int = 10,
        dt: float = 0.1,
        age: float = 0.05,
        source: str = "test",
    ) -> ActionChunk:
        """A chunk in a straight line from the arm's pose to ``joints``, of an observation ``age`` s
        old.
        """
        start, end = (
            np.append(self.arm.plant.joints, self.arm.plant.gripper),
            np.append(joints, gripper),
        )
        rows = start + (end - start) * np.arange(1, steps + 1)[:, None] / steps
        self.sequence += 1
        message = ActionChunk(
            source=source,
            sequence=self.sequence,
            joint_names=list(JOINT_NAMES),
            dt=dt,
            steps=steps,
        )
        message.positions = rows.ravel().tolist()
        message.header.stamp = self.arm.stamp(age)
        return message
