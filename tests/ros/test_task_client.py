"""The client of the demo with stand-ins for the nodes, in a namespace."""

import threading
import time

import pytest
import rclpy
from alam_msgs.action import ExecuteTask
from alam_msgs.srv import ResetWorld
from rclpy.action import ActionServer
from std_srvs.srv import SetBool, Trigger

from alam_core.errors import UserError
from alam_demo.task_client import TaskClient


class FaultyArm:
    """Services of an arm in FAULT, which can be enabled only after the fault was reset."""

    def __init__(self, node):
        self.calls: list[str] = []
        self.fault = True
        node.create_service(SetBool, "/left/alam/arm/enable", self.enable)
        node.create_service(Trigger, "/left/alam/arm/reset_fault", self.reset)
        node.create_service(ResetWorld, "/left/alam/sim/reset", self.reset_world)
        self.server = ActionServer(node, ExecuteTask, "/left/alam/execute_task", self.execute)

    def enable(self, request, response):
        self.calls.append("enable" if request.data else "disable")
        response.success = not self.fault
        response.message = "in FAULT" if self.fault else "enabled"
        return response

    def reset(self, request, response):
        self.calls.append("reset_fault")
        self.fault = False
        response.success = True
        return response

    def reset_world(self, request, response):
        self.calls.append("reset_world")
        response.success, response.instruction = True, "put the cube on the plate"
        return response

    def execute(self, goal):
        goal.succeed()
        return ExecuteTask.Result(success=True, reason=goal.request.instruction)


@pytest.fixture
def arm(ros, domain):
    """A faulty arm that answers in a thread; ROS is initialised for a client in this process."""
    arm = FaultyArm(ros.node)
    rclpy.init(args=[], domain_id=domain)
    done = threading.Event()
    serving = threading.Thread(
        target=lambda: [ros.executor.spin_once(0.05) for _ in iter(done.is_set, True)]
    )
    serving.start()
    yield arm
    done.set()
    serving.join()
    rclpy.try_shutdown()
    arm.server.destroy()


def wait_for_services(client):
    clients = (client._reset, client._enable, client._reset_fault)
    until = time.monotonic() + 60.0
    while not (all(c.service_is_ready() for c in clients) and client._task.server_is_ready()):
        assert time.monotonic() < until, "the stand-ins were not discovered"
        time.sleep(0.05)


def test_a_fault_costs_one_episode_and_not_the_rest(arm):
    with TaskClient(namespace="left") as client:
        wait_for_services(client)
        result = client.run_episode(3, time_limit=1.0)
    assert result.success and result.reason == "put the cube on the plate"
    # While the world is set to its start, nothing is sent to the arm.
    assert arm.calls.index("disable") < arm.calls.index("reset_world")
    assert arm.calls.index("reset_world") < arm.calls.index("reset_fault")
    assert arm.calls.index("reset_fault") < arm.calls.index("enable")


def test_an_arm_that_refuses_is_not_asked_again_and_its_fault_is_not_reset(arm):
    """Whoever holds the arm while a task is started, or whatever a fault protects, has the last
    word.
    """
    with TaskClient(namespace="left") as client:
        wait_for_services(client)
        with pytest.raises(UserError, match="the arm was not enabled: in FAULT"):
            client.enable()
    assert arm.calls == ["enable"]
