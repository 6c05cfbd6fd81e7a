"""Every check of numbers finds the fault that it is for, and nothing in clean numbers."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from check_fixtures import Change, clean, state

from alam_core.data.checks import (
    Finding,
    Recorded,
    check_episodes,
    check_numbers,
)
from alam_core.data.lerobot import EpisodeArrays
from alam_core.robots.piper import JOINT_NAMES
from alam_core.types import STD_FLOOR


def worse_than_notes(findings: list[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.level != "note"]


def all_findings(recorded: Recorded) -> list[Finding]:
    return check_episodes(recorded) + check_numbers(recorded)


def test_clean_numbers_give_no_finding() -> None:
    assert all_findings(clean()) == []


def action(column: int, value: Callable[[np.ndarray], object]) -> Change:
    def change(recorded: Recorded) -> None:
        for episode in recorded.episodes.values():
            episode.action[:, column] = value(episode.action[:, column])

    return change


def at(row: int, value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(column: np.ndarray) -> np.ndarray:
        column = column.copy()
        column[row] = value
        return column

    return change


def task(e: int, text: str) -> Change:
    def change(recorded: Recorded) -> None:
        recorded.episodes[e].tasks[:] = text

    return change


def degrees(recorded: Recorded) -> None:
    for episode in recorded.episodes.values():
        episode.state[:, :6] *= 180 / np.pi
        episode.action[:, :6] *= 180 / np.pi


def names(state_names: list[str], action_names: list[str] | None = None) -> Change:
    def change(recorded: Recorded) -> None:
        recorded.state_names = state_names
        recorded.action_names = action_names or state_names

    return change


def keep(count: int) -> Change:
    def change(recorded: Recorded) -> None:
        recorded.episodes = {e: recorded.episodes[e] for e in range(count)}

    return change


def cut(e: int, length: int) -> Change:
    def change(recorded: Recorded) -> None:
        old = recorded.episodes[e]
        recorded.episodes[e] = EpisodeArrays(
            old.state[:length], old.action[:length], old.tasks[:length]
        )

    return change


def copy(source: int, target: int) -> Change:
    def change(recorded: Recorded) -> None:
        recorded.episodes[target] = recorded.episodes[source]

    return change


def repeat_state(recorded: Recorded) -> None:
    for episode in recorded.episodes.values():
        episode.action = episode.state.copy()


def differences(recorded: Recorded) -> None:
    for episode in recorded.episodes.values():
        episode.action = 20 + np.random.default_rng(0).normal(size=episode.action.shape)
        episode.action *= 0.01


def swap_names(recorded: Recorded) -> None:
    """The action's columns keep their values under swapped names."""
    recorded.action_names = ["joint4", "joint2", "joint3", "joint1", *JOINT_NAMES[4:]]


def without(*lacking: str) -> Change:
    def change(recorded: Recorded) -> None:
        kept = [i for i, name in enumerate(JOINT_NAMES) if name not in lacking]
        recorded.state_names = [JOINT_NAMES[i] for i in kept]
        for e, episode in recorded.episodes.items():
            recorded.episodes[e] = dataclasses.replace(episode, state=episode.state[:, kept])

    return change


def action_lags(recorded: Recorded) -> None:
    for episode in recorded.episodes.values():
        episode.action[:] = np.vstack([episode.state[:1], episode.state[:-1]])


def still_action(recorded: Recorded) -> None:
    for episode in recorded.episodes.values():
        episode.action[:] = 0


def stated(e: int, text: str) -> Change:
    def change(recorded: Recorded) -> None:
        recorded.stated_tasks = {n: [str(x.tasks[0])] for n, x in recorded.episodes.items()}
        recorded.stated_tasks[e] = [text]

    return change


OTHER = [f"servo_{i}" for i in range(7)]
CASES: dict[str, tuple[Change, str, str]] = {  # change, level, words of the finding
    "not finite": (state(1, at(4, np.nan), range(3, 4)), "error", "episode 3, row 4"),
    "infinite action": (action(2, at(0, np.inf)), "error", "12 values are not finite"),
    "no rows": (cut(2, 0), "error", "no rows"),
    "cut off": (cut(5, 4), "warning", "only 4 rows, where the median episode has 30"),
    "one episode": (keep(1), "warning", "--held_out 0"),
    "few episodes": (keep(5), "note", "5 usable episodes are few"),
    "no instruction": (task(3, "  "), "error", "no instruction"),
    "capitals": (task(0, "Put the red cube on the plate."), "warning", "written in 2 ways"),
    "typing error": (task(0, "put the red cube on the plat"), "warning", "(plat, plate)"),
    "a copy": (copy(1, 7), "warning", "row by row"),
    "degrees": (degrees, "error", "degrees"),
    "one episode in degrees": (state(0, lambda x: x * 57.3 + 60, range(6, 7)), "error", "joint1"),
    "millimetres": (state(6, lambda x: x * 1000), "error", "divide it by 1000"),
    "beyond the range": (state(2, lambda x: x + 0.9), "warning", "beyond the arm's range"),
    "wrapped": (state(3, lambda x: np.where(x > 0, x, x + 2 * np.pi)), "warning", "full turn"),
    "lost reading": (state(0, at(9, 2.6), range(1, 2)), "warning", "a lost reading"),
    "too fast": (state(0, lambda x: x + (np.arange(30) > 12)), "warning", "faster than the arm"),
    "constant": (state(4, lambda x: 0.5), "warning", "never changes"),
    "hardly moves": (
        state(4, lambda x: 0.5 + (x - x.mean()) / x.std() * 0.9 * STD_FLOOR),
        "note",
        "hardly",
    ),
    "doubled name": (names([*JOINT_NAMES[:6], "joint1"]), "error", "has the name 'joint1' twice"),
    "no gripper": (without("gripper"), "warning", "there is no gripper"),
    "commands the unseen": (without("joint2"), "warning", "does not observe"),
    "another arm": (names(OTHER), "note", "not compared with the arm's"),
    "nameless": (names([str(i) for i in range(7)]), "note", "have no names"),
    "repeats the state": (repeat_state, "warning", "learns to stay"),
    "action one row late": (action_lags, "error", "learns to go back"),
    "still action": (still_action, "error", "nothing to learn: is this the right feature"),
    "other tasks": (stated(4, "wave"), "warning", "meta/episodes says 'wave', but the rows of"),
    "other order": (swap_names, "error", "'joint1' follows 'joint4'"),
    "opposite sign": (action(0, lambda x: -x), "error", "signs are opposite"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_fault_in_the_numbers_is_found(name: str) -> None:
    change, level, words = CASES[name]
    recorded = clean()
    change(recorded)
    found = [finding for finding in all_findings(recorded) if words in finding.message]
    found += [finding for finding in all_findings(recorded) if words in finding.where]
    assert found and found[0].level == level, all_findings(recorded)
    assert all("\n" not in finding.message for finding in all_findings(recorded))


def test_actions_in_degrees_beside_states_in_rad_are_found_by_their_ratio() -> None:
    recorded = clean()
    names(OTHER)(recorded)
    action(0, np.degrees)(recorded)
    (finding,) = worse_than_notes(check_numbers(recorded))
    assert finding.level == "error" and "in degrees, the state in rad" in finding.message


def state_in_degrees(recorded: Recorded) -> None:
    for episode in recorded.episodes.values():
        episode.state[:, :6] *= 180 / np.pi


@pytest.mark.parametrize(
    ("change", "where"),
    [(degrees, "state and action, "), (state_in_degrees, "state, ")],
)
def test_columns_in_degrees_are_one_finding(change: Change, where: str) -> None:
    recorded = clean()
    change(recorded)
    (finding,) = check_numbers(recorded)
    assert finding.where.startswith(where) and "degrees" in finding.message


def test_a_gripper_in_other_units_hides_no_joint_that_is_too_fast() -> None:
    recorded = clean()
    state(6, lambda x: x * 1000)(recorded)
    state(0, lambda x: x + (np.arange(30) > 12))(recorded)
    found = [finding.message for finding in check_numbers(recorded)]
    assert "divide it by 1000" in found[0] and "faster than the arm" in found[1]


def test_columns_in_another_order_are_one_finding_with_the_likely_order() -> None:
    recorded = clean()
    recorded.action_names = [*JOINT_NAMES[3:6], *JOINT_NAMES[:3], "gripper"]
    (finding,) = check_numbers(recorded)
    assert finding.where == "action 'joint4', 'joint5', 'joint6', 'joint1', 'joint2' and 1 more"
    assert f"the likely order of the action's is {', '.join(JOINT_NAMES)}" in finding.message


def test_several_actions_of_opposite_sign_are_one_finding() -> None:
    recorded = clean()
    for column in (0, 3):
        action(column, lambda x: -x)(recorded)
    (finding,) = check_numbers(recorded)
    assert finding.where == "action 'joint1', 'joint4'" and "opposite" in finding.message


def test_actions_that_are_differences_are_no_set_points() -> None:
    recorded = clean()
    differences(recorded)
    (finding,) = [f for f in check_numbers(recorded) if "differences" in f.message]
    assert finding.level == "warning" and "'joint3'" in finding.where


def test_colours_and_sides_are_no_typing_errors() -> None:
    recorded = clean()
    for e, text in enumerate(
        ("move it left", "move it lift", "open the drawer 1", "open the drawer 2")
    ):
        recorded.episodes[e].tasks[:] = text
    assert check_episodes(recorded) == []


def test_ranges_of_another_arm_with_the_same_joint_names_only_warn() -> None:
    recorded = clean()
    recorded.robot_type = "xarm"
    without("gripper")(recorded)
    recorded.action_names = recorded.state_names
    for e, episode in recorded.episodes.items():
        recorded.episodes[e] = dataclasses.replace(
            episode, state=episode.state - 2, action=episode.action[:, :6] - 2
        )
    levels = {f.level for f in check_numbers(recorded) if "if it is another arm" in f.message}
    assert levels == {"warning"}
