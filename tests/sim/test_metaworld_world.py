"""MetaWorld as a world: a seed determines the episode, images are upright and up to date, experts
succeed.
"""

import numpy as np
import pytest

from alam_core.errors import UserError
from alam_core.sim.metaworld.tasks import INSTRUCTIONS, TRAINING, tasks_of
from alam_core.sim.world import make_expert, make_world
from alam_training.commands.collect import CollectConfig, run_episode

try:
    from alam_core.sim.metaworld.world import ENV_POLICY_MAP, MetaWorld
except UserError as error:
    pytest.skip(str(error), allow_module_level=True)


@pytest.fixture(scope="module")
def world():
    world = MetaWorld("metaworld/drawer-open,push", image_size=48)
    try:
        world.reset(0)
    except UserError as error:  # the libraries are installed, a driver is missing
        pytest.skip(str(error))
    yield world
    world.close()


def play(world: MetaWorld, seed: int, steps: int) -> list[np.ndarray]:
    """An episode of the expert: MetaWorld's full observations, then the images of each view."""
    observations = [world.reset(seed)]
    full = [world.observed]
    expert = make_expert(world, seed)
    expert.reset()
    for _ in range(steps):
        observations.append(world.step(expert.act()))
        full.append(world.observed)
    return [
        np.stack(full),
        *(np.stack([o.images[view] for o in observations]) for view in observations[0].images),
    ]


@pytest.mark.parametrize("seed", [10, 11])  # one of each task
def test_a_seed_determines_the_episode_after_any_other_episode(world: MetaWorld, seed: int) -> None:
    first = play(world, seed, 12)
    play(world, seed + 2, 20)
    for one, other in zip(first, play(world, seed, 12), strict=True):
        np.testing.assert_array_equal(one, other)
    fresh = MetaWorld(f"metaworld/{world.task}", image_size=48)
    try:
        for one, other in zip(first, play(fresh, seed, 12), strict=True):
            np.testing.assert_array_equal(one, other)
    finally:
        fresh.close()


def test_seeds_alternate_between_the_tasks_and_vary_their_scenes(world: MetaWorld) -> None:
    scenes = {}
    for seed in range(8):
        observation = world.reset(seed)
        assert world.task == ("drawer-open", "push")[seed % 2]
        assert observation.instruction == INSTRUCTIONS[world.task]
        scenes[seed] = world.observed.round(4).tobytes()
    assert len(set(scenes.values())) == 8


def test_images_are_upright_and_not_mirrored(world: MetaWorld) -> None:
    """Moves the puck of 'push'. It must move in the images as seen by a camera on the arm's left
    (third person) and by one that looks down (wrist).
    """
    world.reset(1)

    def seen_at(view: str, x: float, y: float, z: float) -> np.ndarray:
        """Mean row (down) and column (to the right) of the pixels that differ from an image
        without the puck.
        """
        images = []
        for position in ([0.0, -3.0, 0.0], [x, y, z]):
            world._env._set_obj_xyz(np.array(position))
            images.append(world.render(view).astype(int))
        return np.argwhere(np.abs(images[0] - images[1]).max(-1) > 15).mean(0)

    rows, columns = seen_at("third_person", 0.05, 0.6, 0.1) - seen_at(
        "third_person", 0.05, 0.6, 0.02
    )
    assert rows < -5 and abs(columns) < 3  # higher is up
    rows, columns = seen_at("third_person", 0.05, 0.75, 0.02) - seen_at(
        "third_person", 0.05, 0.6, 0.02
    )
    assert columns > 10  # away from the arm's base is to the right
    rows, columns = seen_at("wrist", 0.05, 0.7, 0.02) - seen_at("wrist", 0.0, 0.65, 0.02)
    assert rows < -5 and columns > 5


def test_images_show_the_arm_move_after_a_change_of_task_too(world: MetaWorld) -> None:
    for seed in (0, 1, 0):
        before = world.reset(seed)
        for _ in range(15):
            after = world.step(np.array([1.0, 0.5, -0.5, 0.0]))
        assert after.stamp - before.stamp == pytest.approx(15 / 80)
        for view in ("third_person", "wrist"):
            assert (
                before.images[view].shape == (48, 48, 3) and before.images[view].dtype == np.uint8
            )
            assert np.abs(before.images[view].astype(int) - after.images[view]).mean() > 1


def test_rendering_changes_nothing_but_the_images(world: MetaWorld) -> None:
    ends = []
    for render in (True, False):
        world.reset(5)
        after = world.step(np.array([1.0, 0.5, -0.5, 0.0]), render=render)
        assert bool(after.images) == render
        ends.append((after.state, world.step(np.array([1.0, 0.5, -0.5, 0.0]))))
    np.testing.assert_array_equal(ends[0][0], ends[1][0])
    for view in ("third_person", "wrist"):
        np.testing.assert_array_equal(ends[0][1].images[view], ends[1][1].images[view])


def test_an_action_moves_the_gripper_by_centimetres(world: MetaWorld) -> None:
    start = world.reset(0).state
    for _ in range(10):
        state = world.step(np.array([5.0, 0.0, 0.0, 1.0])).state  # clipped to 1 cm a step
    for _ in range(20):
        state = world.step(np.array([0.0, 0.0, 0.0, 1.0])).state
    assert state[:3] - start[:3] == pytest.approx([0.1, 0, 0], abs=0.01)
    assert state[3] < start[3] - 0.2


def test_the_hold_action_keeps_the_arm_in_place(world: MetaWorld) -> None:
    before = world.reset(1)
    for _ in range(5):
        after = world.step(world.hold(before.state), render=False)
    np.testing.assert_allclose(after.state[:3], before.state[:3], atol=2e-3)


@pytest.mark.parametrize("seed", [4, 5])
def test_the_expert_succeeds_and_success_ends_the_episode(world: MetaWorld, seed: int) -> None:
    episode = run_episode(
        world, make_expert, CollectConfig(world=world.name, noisy_fraction=0.0, hold_steps=1), seed
    )
    assert episode.success and world.success()
    assert 20 < len(episode.action) < world.max_steps
    assert np.abs(episode.action).max() <= 1
    world.reset(seed)
    assert not world.success()


def test_every_task_of_the_benchmark_has_its_own_instruction() -> None:
    assert {f"{task}-v3" for task in INSTRUCTIONS} == set(ENV_POLICY_MAP)
    assert len(set(INSTRUCTIONS.values())) == 50
    assert set(TRAINING) <= set(INSTRUCTIONS) and tasks_of("metaworld") == TRAINING


@pytest.mark.parametrize(
    "name", ["metaworld/drawer-opne", "metaworld/", "metaworld/push,", "metaworlds"]
)
def test_an_unknown_name_is_an_error_of_one_line(name: str) -> None:
    with pytest.raises(UserError) as raised:
        make_world(name)
    assert "\n" not in str(raised.value)
