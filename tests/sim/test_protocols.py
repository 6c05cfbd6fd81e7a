"""The named protocols: the values of their profiles, and what worlds make of them."""

from collections import Counter

import numpy as np
import pytest

from alam_core.errors import UserError
from alam_core.sim.metaworld.tasks import INSTRUCTIONS, TIER_OF, TIERS
from alam_core.sim.profiles import LiberoProfile, MetaWorldProfile, Profile
from alam_core.sim.protocols import PROTOCOLS, count_tasks, find_profile
from alam_core.sim.world import make_world

# From the code and the records that docs/benchmarks.md names, not from the table that is tested.
# rendering aside: camera pixels, settling, episodes per task, views, steps, state
METAWORLD = {
    "alam": (480, 0, 10, ("third_person", "wrist"), 200, 4),
    "evo1": (480, 1, 10, ("third_person",), 400, 8),
    "lerobot": (480, 0, 10, ("third_person",), 500, 4),
}
# camera pixels, settling, episodes per task, steps of each suite
LIBERO = {
    "alam": (256, 50, 50, (220, 280, 300, 520)),
    "evo1": (448, 10, 10, (350, 350, 350, 990)),
    "lerobot": (256, 10, 10, (280, 280, 300, 520)),
    "openpi": (256, 10, 50, (220, 280, 300, 520)),
}


def test_the_tables_have_the_published_values() -> None:
    for name, values in METAWORLD.items():
        profile = find_profile("metaworld/mt50", name)
        assert isinstance(profile, MetaWorldProfile) and profile.rendering == "full"
        common = (profile.camera_size, profile.settle_steps, profile.episodes_per_task)
        assert (*common, profile.views, profile.max_steps, profile.state_dim) == values
    for name, values in LIBERO.items():
        profile = find_profile("libero/goal", name)
        assert isinstance(profile, LiberoProfile) and profile.rendering == "full"
        common = (profile.camera_size, profile.settle_steps, profile.episodes_per_task)
        assert (*common, profile.max_steps) == values and profile.mirrored
    assert {name for name, table in PROTOCOLS.items() if "metaworld" in table} == set(METAWORLD)
    assert PROTOCOLS.keys() == LIBERO.keys()


@pytest.mark.parametrize(
    ("protocol", "seeds"),  # of tasks 0 and 1, episode 0, then of task 0, episode 1
    [("alam", (10, 1010, 11)), ("evo1", (4042, 4042, 4043)), ("lerobot", (1000, 1000, 1001))],
)
def test_a_protocol_seeds_the_simulator_by_task_and_episode(protocol: str, seeds) -> None:
    profile = find_profile("metaworld/mt50", protocol)
    assert profile is not None
    assert tuple(profile.simulator_seed(seed, seed % 50, 50) for seed in (0, 1, 50)) == seeds
    assert Profile().simulator_seed(123, 7, 50) == 123


def test_a_way_of_rendering_changes_nothing_else() -> None:
    assert find_profile("metaworld") == MetaWorldProfile() and find_profile("piper_place") is None
    assert find_profile("libero", rendering="full") == LiberoProfile(rendering="full")
    fast = find_profile("libero/long/3", "openpi", "fast")
    assert fast is not None and fast.rendering == "fast" and fast.camera_size == 256
    with pytest.raises(UserError, match="without shadows only"):
        find_profile("piper_place", rendering="full")


def test_tasks_are_counted_by_the_name_of_the_world() -> None:
    names = ("metaworld", "metaworld/push,reach", "libero", "libero/object", "libero/long/2", "x")
    assert [count_tasks(name) for name in names] == [12, 2, 40, 10, 1, 1]


def test_every_task_of_mt50_is_in_one_tier() -> None:
    assert sum(len(tasks) for tasks in TIERS.values()) == len(set().union(*TIERS.values()))
    assert set().union(*TIERS.values()) <= INSTRUCTIONS.keys()
    assert Counter(TIER_OF.values()) == {"easy": 28, "medium": 11, "hard": 6, "very hard": 5}


@pytest.fixture(scope="module")
def push():
    """protocol -> the world 'metaworld/push' after the reset of seed 2, and what was observed."""
    worlds = {}
    try:
        for protocol in ("", *METAWORLD):
            world = make_world("metaworld/push", 48, find_profile("metaworld", protocol))
            worlds[protocol] = (world, world.reset(2))
    except UserError as error:  # no simulator, or no driver
        pytest.skip(str(error))
    yield worlds
    for world, _ in worlds.values():
        world.close()


def test_metaworld_shows_what_the_profile_says(push) -> None:
    seen = {name: observation for name, (_, observation) in push.items()}
    assert [len(seen[name].state) for name in ("", "alam", "evo1", "lerobot")] == [4, 4, 8, 4]
    assert not seen["alam"].images["wrist"].any() and seen[""].images["wrist"].any()
    assert "wrist" not in seen["evo1"].images and "wrist" not in seen["lerobot"].images
    views = [seen[name].images["third_person"].astype(int) for name in seen]
    for number, view in enumerate(views):
        assert view.shape == (48, 48, 3)
        assert all(np.abs(view - other).mean() > 1 for other in views[:number])
    # the crop: two thirds of the width, around the centre
    world, _ = push["evo1"]
    assert world.render("third_person").shape == (320, 320, 3)
    for name, steps in (("", 200), ("alam", 200), ("evo1", 400), ("lerobot", 500)):
        assert push[name][0].max_steps == steps


def test_the_episodes_of_a_protocol_have_its_seeds(push) -> None:
    """ALAM's: 'push' is task 40 of MT50, so episode 2 has the seed 10 + 40000 + 2."""
    own = push[""][0]
    own.reset(40_012)
    np.testing.assert_array_equal(own.observed, push["alam"][0].observed)
    own.reset(2)
    assert np.abs(own.observed - push["alam"][0].observed).max() > 1e-3


def test_evo1_begins_with_a_step_without_motion(push) -> None:
    own = push[""][0]
    own.reset(4044)
    own.step(np.zeros(4), render=False)
    np.testing.assert_array_equal(own.observed, push["evo1"][0].observed)


def test_full_rendering_is_mujocos_own(push) -> None:
    from alam_core.sim.rendering import mujoco

    world, _ = push["lerobot"]
    env, size = world._env, world.profile.camera_size
    ours = world.render("third_person")
    renderer = mujoco.Renderer(env.model, size, size)
    try:
        renderer.update_scene(env.data, camera="corner2")
        np.testing.assert_array_equal(ours, renderer.render()[::-1, ::-1])
    finally:
        renderer.close()
