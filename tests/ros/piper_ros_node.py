"""A node that plays the manufacturer's piper_ros, and stand-ins for its message types.

piper_msgs is not on PyPI. Its stand-ins are messages of ROS, over real DDS, to which the fields of
PiperStatusMsg and Enable are added as properties.
"""

import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_msgs.msg import UInt8MultiArray
from std_srvs.srv import SetBool

from alam_core.robots.piper import JOINT_NAMES

STATUS_FIELDS = ("ctrl_mode", "arm_status", "teach_status", "mode_feedback", "err_code") + tuple(
    f"communication_status_joint_{i}" for i in range(1, 7)
)


def add_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make ``piper_msgs`` importable until the end of the test."""
    for column, name in enumerate(STATUS_FIELDS):
        field = property(lambda message, column=column: message.data[column])
        monkeypatch.setattr(UInt8MultiArray, name, field, raising=False)
    request = property(lambda m: m.data, lambda m, value: setattr(m, "data", value))
    monkeypatch.setattr(SetBool.Request, "enable_request", request, raising=False)
    response = property(lambda m: m.success)
    monkeypatch.setattr(SetBool.Response, "enable_response", response, raising=False)
    messages = SimpleNamespace(PiperStatusMsg=UInt8MultiArray)
    monkeypatch.setitem(sys.modules, "piper_msgs", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "piper_msgs.msg", messages)
    monkeypatch.setitem(sys.modules, "piper_msgs.srv", SimpleNamespace(Enable=SetBool))


class PiperRos:
    """piper_ros and its arm. The arm is at once where a command asks it to be.

    status: the fields of the status, by name. stamp: s of the joint states; None: now. names: of
    the joints. silent: whether nothing is published. commands, requests: what was received.
    """

    def __init__(self, joints: np.ndarray, obeys: str = "joint_ctrl_single") -> None:
        self.joints = np.array(joints, float)  # (7,) rad and m
        self.status = dict.fromkeys(STATUS_FIELDS, 0)
        self.stamp: float | None = None
        self.names = list(JOINT_NAMES)
        self.silent = False
        self.enabled = False
        self.commands: list[JointState] = []
        self.requests: list[bool] = []
        self.node = Node("piper_ctrl_single_node", start_parameter_services=False)
        self._states = self.node.create_publisher(JointState, "joint_states_single", 1)
        self._status = self.node.create_publisher(UInt8MultiArray, "arm_status", 1)
        self.node.create_subscription(JointState, obeys, self._on_command, 1)
        self.node.create_service(SetBool, "enable_srv", self._on_enable)
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._executor.spin),
            threading.Thread(target=self._publish),
        ]
        for thread in self._threads:
            thread.start()

    def _publish(self) -> None:
        while not self._stop.wait(0.01):
            if self.silent:
                continue
            stamp = time.time() if self.stamp is None else self.stamp
            state = JointState(name=self.names)
            state.header.stamp.sec = int(stamp)
            state.header.stamp.nanosec = int(stamp % 1 * 1e9)
            state.position = self.joints.tolist()
            state.velocity = [0.0] * 6
            self._states.publish(state)
            self._status.publish(UInt8MultiArray(data=list(self.status.values())))

    def _on_command(self, message: JointState) -> None:
        self.commands.append(message)
        if self.enabled:
            self.status |= {"ctrl_mode": 1, "mode_feedback": 1}
            named = dict(zip(message.name, message.position, strict=True))
            self.joints[:] = [named.get(name, 0.0) for name in JOINT_NAMES]

    def _on_enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self.requests.append(request.data)
        time.sleep(0.2)
        self.joints[6] = 0.0  # it closes the gripper
        self.enabled = response.success = request.data
        return response

    def close(self) -> None:
        self._stop.set()
        self._executor.shutdown()
        for thread in self._threads:
            thread.join()
        self.node.destroy_node()
