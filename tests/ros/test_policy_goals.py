"""What a client of the policy is told about its goal, and the client ``alam run``."""

import signal
from collections.abc import Callable

import test_policy_node
from alam_msgs.msg import ArmStatus
from test_platform_cli import ALAM
from test_policy_node import TASK, World

from alam_common.processes import ChildProcess

world = test_policy_node.world  # the fixture


def test_an_aborted_goal_names_the_instruction_that_was_judged(world: World) -> None:
    answer = world.result(world.send_goal(time_limit=0.5), tick=True)
    assert "nothing on /alam/task_status" in answer.result.reason

    def tick_and_judge(instruction: str) -> None:
        world.tick()
        world.judge(success=True, instruction=instruction)

    for judged, told in (("lift the blue cube", True), (TASK, False)):
        goal = world.send_goal(time_limit=1.0)
        world.result(goal, again=lambda judged=judged: tick_and_judge(judged))
        answer = goal.get_result_async()
        world.ros.wait_for(answer.done, what="the result")
        assert answer.result().result.success is not told
        assert (judged in answer.result().result.reason) is told


def test_alam_run_needs_an_enabled_arm_and_ctrl_c_cancels_its_goal(
    world: World, start: Callable[..., ChildProcess]
) -> None:
    arm = world.ros.node.create_publisher(ArmStatus, "/alam/arm/status", 10)

    def run_until(condition: Callable[[ChildProcess], object], state: str) -> ChildProcess:
        run = start("run", [ALAM, "run", TASK, "--time_limit", "1000"])

        def tick() -> None:
            arm.publish(ArmStatus(state=state, reason="for this test"))
            world.tick()

        world.ros.wait_for(lambda: condition(run), what=f"alam run, {state}", again=tick, every=0.1)
        return run

    run = run_until(lambda run: run.poll() is not None, "DISABLED")
    assert run.wait(1) == 2 and "DISABLED (for this test)" in run.last_line()
    assert "--enable" in run.last_line()

    run = run_until(lambda run: any("chunks" in line for line in run.lines), "HOLDING")
    run.send(signal.SIGINT)
    world.ros.wait_for(lambda: run.poll() is not None, what="alam run to end")
    assert run.wait(1) == 130 and run.last_line().startswith("canceled: no chunk")
    world.ros.wait_for(lambda: world.says("waiting for a goal"), what="the diagnosis")
