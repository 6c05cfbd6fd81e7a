"""Two graphs on one host, in one ROS domain, told apart by their namespaces."""

import numpy as np
from alam_msgs.msg import ActionChunk
from piper_arm import HOME, EmulatedArm
from sensor_msgs.msg import JointState
from std_srvs.srv import SetBool

from alam_core.robots.piper import JOINT_NAMES

SIDES = ("left", "right")
PATIENCE = 120  # s
LATER = 500 * 10**9  # ns by which the right arm's clock is ahead


def test_two_controllers_do_not_hear_each_other(ros, start_node, can_udp_port):
    ports = {"left": can_udp_port, "right": can_udp_port + 233}
    arms = {side: EmulatedArm(ros.node, ports[side], f"/{side}/clock") for side in SIDES}
    arms["right"].nanoseconds += LATER
    try:
        for side in SIDES:
            start_node(
                "alam_piper",
                "arm_controller",
                {"use_sim_time": True, "can_port": ports[side]},
                {"__ns": f"/{side}"},
            )
        states = {side: ros.collect(JointState, f"/{side}/joint_states") for side in SIDES}
        for side in SIDES:
            ros.wait_for(lambda s=side: states[s], PATIENCE, f"joint states of the {side} arm")
        assert states["left"][-1].header.stamp.sec < 400 < states["right"][-1].header.stamp.sec

        def enable() -> bool:
            request = SetBool.Request(data=True)
            return ros.call(SetBool, "/left/alam/arm/enable", request, PATIENCE).success

        ros.wait_for(enable, PATIENCE, "the left arm to be enabled")
        left, right = arms["left"], arms["right"]
        chunks = ros.node.create_publisher(ActionChunk, "/left/alam/action_chunk", 10)
        goal = HOME + [0.2, 0, 0, 0, 0, 0]
        sequence = 0

        def send() -> None:
            nonlocal sequence
            sequence += 1
            message = ActionChunk(
                source="test", sequence=sequence, joint_names=list(JOINT_NAMES), dt=0.1, steps=10
            )
            message.positions = [*goal, 0.05] * 10
            message.header.stamp = left.stamp(0.05)
            chunks.publish(message)

        ros.wait_for(
            lambda: np.abs(left.plant.joints - goal).max() < 1e-3,
            PATIENCE,
            "the left arm to move",
            again=send,
        )
        assert right.emulator.joint_commands == 0 and not right.emulator.enabled.any()
        assert np.array_equal(right.plant.joints, HOME)
    finally:
        for arm in arms.values():
            arm.close()
