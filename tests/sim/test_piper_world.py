"""What every world of the Piper must do, for any task. Every file in ``tasks/`` is tested here; a
new one needs no change.
"""

from collections.abc import Iterator

import numpy as np
import pytest

from alam_core.errors import UserError
from alam_core.robots.piper import HOME
from alam_core.sim.world import TICK, WORLDS, DrivenWorld, make_expert, make_world

try:
    from alam_core.sim.piper.world import PiperWorld
except UserError as error:
    pytest.skip(str(error), allow_module_level=True)


@pytest.fixture(
    scope="module", params=[name for name in WORLDS.names() if name.startswith("piper_")]
)
def world(request: pytest.FixtureRequest) -> Iterator[PiperWorld]:
    try:
        world = make_world(request.param, image_size=64)
    except UserError as error:  # the libraries are installed, a driver is missing
        pytest.skip(str(error))
    assert isinstance(world, PiperWorld)
    yield world
    world.close()


def test_a_simulator_node_can_drive_it(world: PiperWorld) -> None:
    assert isinstance(world, DrivenWorld)
    assert world.name.startswith("piper_") and world.task == world.name


def test_a_seed_determines_the_episode(world: PiperWorld) -> None:
    first = world.reset(11)
    after = world.step(np.array(HOME))
    world.reset(12)
    world.step(np.array(HOME) + 0.1)
    again = world.reset(11)
    assert again.instruction == first.instruction
    np.testing.assert_array_equal(again.state, first.state)
    for view in first.images:
        np.testing.assert_array_equal(again.images[view], first.images[view])
    np.testing.assert_array_equal(world.step(np.array(HOME)).state, after.state)


def test_rendering_changes_nothing_but_the_images(world: PiperWorld) -> None:
    ends = []
    for render in (True, False):
        world.reset(5)
        after = world.step(np.array(HOME) + 0.1, render=render)
        assert bool(after.images) == render
        ends.append((after.state, world.step(np.array(HOME) + 0.1)))
    np.testing.assert_array_equal(ends[0][0], ends[1][0])
    for view in ("third_person", "wrist"):
        np.testing.assert_array_equal(ends[0][1].images[view], ends[1][1].images[view])


def test_images_show_the_arm_move(world: PiperWorld) -> None:
    before = world.reset(3)
    for _ in range(5):
        after = world.step(np.array([0.4, 1.4, -0.9, 0.0, 0.9, 0.0, 0.02]))
    for view in before.images:
        assert before.images[view].shape == (64, 64, 3) and before.images[view].dtype == np.uint8
        assert np.abs(before.images[view].astype(int) - after.images[view]).mean() > 1


def test_an_image_may_be_larger_than_the_camera_delivers(world: PiperWorld) -> None:
    assert world.render("wrist", 700).shape == (700, 700, 3)


def test_the_arm_reaches_its_set_point_and_holds_it(world: PiperWorld) -> None:
    world.reset(4)
    goal = np.array([0.3, 1.5, -1.2, 0.2, 0.8, -0.3, 0.03])
    for _ in range(round(2.0 / TICK)):
        world.physics_step(goal)
    joints, velocity = world.joint_state()
    np.testing.assert_allclose(joints[:6], goal[:6], atol=0.01)
    assert joints[6] == pytest.approx(0.03, abs=0.002)
    assert np.abs(velocity).max() < 0.01


@pytest.mark.parametrize("seed", range(5))
def test_the_expert_does_the_task(world: PiperWorld, seed: int) -> None:
    world.reset(seed)
    assert not world.success()
    expert = make_expert(world, seed)
    expert.reset()
    change = expert.act()[:6] - world.joint_state()[0][:6]
    assert np.abs(change).max() < 0.1  # below the controller's default of 1 rad/s
    for _ in range(world.max_steps):
        world.step(expert.act(), render=False)
        if world.success():
            return
    pytest.fail("the expert did not do the task")
