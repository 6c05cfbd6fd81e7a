"""The policy node as a real process: names of columns, and instructions it was not trained on."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from action_msgs.msg import GoalStatus
from policy_world import STATE, TASK, start_with
from tiny_checkpoints import HORIZON, save_tiny_policy

from alam_core import types
from alam_core.robots.piper import JOINT_NAMES
from alam_core.runtime.planner import Planner
from alam_core.runtime.runner import PolicyRunner
from alam_core.types import VIEWS


def test_columns_are_picked_by_name(ros, start_node: Callable, tmp_path: Path) -> None:
    """The data have the gripper first, under other names."""
    names = ["hand", *JOINT_NAMES[:6]]
    changes = {"joint_names": names, "state_names": names, "relative_joints": names}
    world, _ = start_with(
        ros, start_node, tmp_path / "policy", changes, joint_names_map=["hand=gripper"]
    )
    world.send_goal()
    world.tick()
    world.ros.wait_for(lambda: world.chunks, what="a chunk")
    stamp, chunk = world.sent[-1], world.chunks[0]
    images = dict(zip(VIEWS, world.picture(stamp), strict=True))
    planner = Planner(PolicyRunner.from_pretrained(tmp_path / "policy"), replan_every=4)
    planner.reset(seed=5)
    wanted = planner.plan(types.Observation(images, np.roll(STATE, 1), TASK, stamp * 1e-9))
    assert tuple(chunk.joint_names) == JOINT_NAMES
    np.testing.assert_allclose(
        np.reshape(chunk.positions, (HORIZON, 7)), np.roll(wanted.actions, -1, 1), atol=1e-5
    )


def test_a_goal_is_refused_where_names_are_not_those_of_the_arm(
    ros, start_node: Callable, tmp_path: Path
) -> None:
    names = [f"joint_{i}.pos" for i in range(1, 8)]
    changes = {"joint_names": names, "state_names": names, "relative_joints": names}
    world, _ = start_with(ros, start_node, tmp_path / "policy", changes)
    world.ros.wait_for(lambda: world.says("joint_names_map"), what="the diagnosis")
    answer = world.result(world.send_goal())  # without any observation
    assert answer.status == GoalStatus.STATUS_ABORTED
    assert "has joint_1.pos, joint_2.pos" in answer.result.reason
    assert "joint_names_map, for example joint_1.pos=joint1" in answer.result.reason
    assert not world.chunks and answer.result.chunks == 0


@pytest.mark.parametrize("strict", [False, True])
def test_an_unknown_instruction_is_told_or_refused(
    ros, start_node: Callable, tmp_path: Path, strict: bool
) -> None:
    known = [TASK, "put the blue cube on the plate"]
    world, process = start_with(
        ros, start_node, tmp_path / "policy", {"instructions": known}, strict_instructions=strict
    )
    told = f"this policy was not trained on 'pick up bananas', only on '{known[0]}', '{known[1]}'"
    goal = world.send_goal("pick up bananas")
    if not strict:
        world.tick()
        world.ros.wait_for(lambda: world.chunks and world.feedback, what="chunk and feedback")
        assert world.feedback[-1].warning == told
        world.ros.wait_for(lambda: world.says(told), what="the diagnosis")
    answer = world.result(goal, again=None if strict else goal.cancel_goal_async)
    assert told in answer.result.reason
    assert (answer.status == GoalStatus.STATUS_ABORTED) is strict
    world.ros.wait_for(lambda: any(told in line for line in process.lines), what="the log")
    # What makes no difference: case, spaces, a full stop; for the judge neither.
    before, world.feedback = len(world.chunks), []
    goal = world.send_goal(f"{TASK.capitalize()} .")
    world.tick()
    world.ros.wait_for(lambda: len(world.chunks) > before and world.feedback, what="feedback")
    assert world.feedback[-1].warning == ""
    answer = world.result(goal, again=lambda: world.judge(True))
    assert answer.status == GoalStatus.STATUS_SUCCEEDED and "warning" not in answer.result.reason


def test_settings_that_cannot_work_end_it_with_one_clear_line(
    start_node: Callable, tmp_path: Path
) -> None:
    folder = tmp_path / "policy"
    save_tiny_policy(folder)  # keeps no instructions
    for parameters, words in (
        ({"strict_instructions": True}, "strict_instructions needs a checkpoint that keeps"),
        ({"joint_names_map": ["joint_1.pos"]}, "joint_names_map has the entry 'joint_1.pos'"),
    ):
        process = start_node("alam_policy", "policy", {"checkpoint": str(folder), **parameters})
        assert process.wait(120) == 2
        assert process.last_line().startswith("error: ") and words in process.last_line()
