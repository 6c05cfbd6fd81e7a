"""LeRobot data sets whose tables are not as they should be: read right where they are unambiguous,
and otherwise refused in one line that names the file, the episode and the column.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lerobot_fixtures import (
    DATA,
    EPISODES,
    LENGTHS,
    NAMES,
    SIZE,
    as_version_2,
    edit_json,
    edit_line,
    edit_rows,
    episode,
    rename_feature,
    write,
)

from alam_core.data.lerobot import Columns, LeRobotDataset, layout
from alam_core.data.mixture import SourceConfig, open_sources
from alam_core.errors import UserError

WRIST = "videos/observation.images.wrist/"


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write(folder / "v3")
    as_version_2(folder / "v3", folder / "v2")
    return folder


@pytest.fixture
def v3(originals: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(originals / "v3", tmp_path / "v3"))


@pytest.fixture
def v2(originals: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(originals / "v2", tmp_path / "v2"))


def set_task(first: int, number: int) -> Callable[[list[dict[str, Any]]], None]:
    """Change the task of episode 1 from frame ``first`` on."""

    def change(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            if row["episode_index"] == 1 and row["frame_index"] >= first:
                row["task_index"] = number

    return change


@pytest.mark.parametrize("version", ["v3", "v2"])
@pytest.mark.parametrize("first", [20, 0])  # 0: the rows contradict meta/episodes
def test_instructions_are_those_of_the_rows(
    originals: Path, tmp_path: Path, version: str, first: int
) -> None:
    root = Path(shutil.copytree(originals / version, tmp_path / "set"))
    file = DATA if version == "v3" else "data/chunk-000/episode_000001.parquet"
    edit_rows(root / file, set_task(first, 0))
    tasks = LeRobotDataset(root).episode(1).tasks
    assert tasks.tolist() == ["pick blue"] * first + ["pick red"] * (LENGTHS[1] - first)


@pytest.mark.parametrize("version", ["v3", "v2"])
@pytest.mark.parametrize("cut", [False, True])
def test_rows_in_another_order_or_without_the_first_frames_are_named(
    originals: Path, tmp_path: Path, version: str, cut: bool
) -> None:
    def change(rows: list[dict[str, Any]]) -> None:
        own = [row for row in rows if row["episode_index"] == 1]
        for row, number in zip(own, range(5, 5 + len(own)) if cut else (1, 0), strict=cut):
            row["frame_index"] = number

    root = Path(shutil.copytree(originals / version, tmp_path / "set"))
    edit_rows(root / (DATA if version == "v3" else "data/chunk-000/episode_000001.parquet"), change)
    dataset = LeRobotDataset(root)
    words = f"frame_index is {5 if cut else 1} in episode 1, row 0: rows are missing or in another"
    with pytest.raises(UserError, match=words):
        dataset.episode(1)
    assert len(dataset.episode(2).state) == LENGTHS[2]


def test_a_task_that_is_not_listed_is_named(v3: Path) -> None:
    edit_rows(v3 / DATA, set_task(20, 7))
    dataset = LeRobotDataset(v3)
    assert dataset.episode(0).task == "pick red"
    with pytest.raises(
        UserError, match="file-000.parquet': task_index is 7 in episode 1, row 20, which meta/tasks"
    ):
        dataset.episode(1)


def test_without_a_table_of_tasks_the_episodes_say_what_is_done(v2: Path) -> None:
    (v2 / "meta/tasks.jsonl").unlink()
    edit_line(v2 / "meta/episodes.jsonl", 2, tasks="wave")  # text instead of a list of it
    edit_line(v2 / "meta/episodes.jsonl", 3, tasks=["wave", "rest"])
    dataset = LeRobotDataset(v2)
    assert dataset.episode(0).task == "pick red" and dataset.episode(2).task == "wave"
    with pytest.raises(UserError, match="episode 3 .* 'wave', 'rest', but nothing says which rows"):
        dataset.episode(3)


@pytest.mark.parametrize("version", ["v3", "v2"])
def test_without_a_table_of_tasks_no_row_gets_the_instruction_of_another(
    originals: Path, tmp_path: Path, version: str
) -> None:
    """Rows of a second task, in a data set whose metadata name one instruction an episode."""
    root = Path(shutil.copytree(originals / version, tmp_path / "set"))
    file = DATA if version == "v3" else "data/chunk-000/episode_000001.parquet"
    edit_rows(root / file, set_task(20, 0))
    (root / (layout.TASKS if version == "v3" else "meta/tasks.jsonl")).unlink()
    words = {
        "v3": "lacks meta/tasks.parquet, which says what task_index 1 of episode 1 means",
        "v2": "nothing says which rows belong to which",
    }
    with pytest.raises(UserError, match=words[version]):
        LeRobotDataset(root).episode(1)
    if version == "v3":  # nor does its video need it
        assert LeRobotDataset(root, Columns("", "")).frames(1, "wrist", [2]).shape[0] == 1


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({WRIST + "chunk_index": None}, f"'{WRIST}chunk_index' is null; expected an integer"),
        ({WRIST + "from_timestamp": float("nan")}, "from_timestamp' is nan; expected a number"),
        ({"data/file_index": -1}, "'data/file_index' is -1"),
        ({"length": 0}, "'length' is 0; expected an integer of at least 1"),
        ({"length": 40}, f"'length' is 40, but .* are {LENGTHS[1]} rows"),
        ({"dataset_to_index": 3}, "'length' is 30, but 'dataset_from_index' 11 .* 3 are -8 rows"),
        (
            {"dataset_from_index": 10, "dataset_to_index": 40},
            "from 'dataset_from_index' 10, overlap those of episode 0, to 'dataset_to_index' 11",
        ),
    ],
)
def test_broken_metadata_of_an_episode_are_named_or_collected(
    v3: Path, values: dict[str, Any], words: str
) -> None:
    edit_rows(v3 / EPISODES, lambda rows: rows[1].update(values))
    with pytest.raises(UserError, match=f"meta/episodes', episode 1: .*{words}") as error:
        LeRobotDataset(v3)
    assert "\n" not in str(error.value)
    broken: dict[int, str] = {}
    dataset = LeRobotDataset(v3, broken=broken)
    assert set(broken) == {1} and dataset.episode_length(1) == 0
    for k in (0, 2, 3):
        np.testing.assert_array_equal(dataset.episode(k).state, episode(k)["state"])
    for read in (dataset.episode, lambda e: dataset.video_span(e, "wrist")):
        with pytest.raises(UserError, match=words):
            read(1)
    (source,) = open_sources([SourceConfig(str(v3))], 8, False)
    assert source.broken == broken


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"fps": 0}, "'fps' is 0; expected a number above 0"),
        ({"fps": None}, "'fps' is null"),
        ({"total_episodes": "4"}, "'total_episodes' is '4'; expected an integer"),
        ({"total_episodes": 5}, r"lists 4 of 5 episodes \(the first that is missing is 4\)"),
        ({"total_frames": 70}, f"total_frames is 70, but its 4 episodes have {sum(LENGTHS)}"),
        ({"features": ["a"]}, r"'features' is \['a'\]; expected an object"),
        ({"features": {"action": {"shape": [3]}}}, "feature 'action': 'dtype' is missing"),
        ({"data_path": "data/{episode}.parquet"}, "data_path is .*, which asks for 'episode'"),
        ({"video_path": None}, "lacks video_path"),
    ],
)
def test_values_of_info_are_checked(v3: Path, values: dict[str, Any], words: str) -> None:
    edit_json(v3 / layout.INFO, **values)
    with pytest.raises(UserError, match=words):
        LeRobotDataset(v3)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ({"length": "11"}, "episode 1: 'length' is '11'; expected an integer"),
        ({"tasks": [None]}, "episode 1: 'tasks' is .*; expected a list of instructions"),
        ({"episode_index": 0}, r"lists 4 of 4 episodes \(0 is there twice\)"),
        ({"episode_index": None}, "row 1: 'episode_index' is null"),
        ({"length": 4}, "episode 1: 'length' is 4, but .*episode_000001.parquet' has 30 rows"),
    ],
)
def test_lines_of_version_2_are_checked(v2: Path, line: dict[str, Any], words: str) -> None:
    edit_line(v2 / "meta/episodes.jsonl", 1, **line)
    with pytest.raises(UserError, match=words):
        LeRobotDataset(v2)


def test_an_episode_whose_file_has_other_rows_is_the_only_one_that_is_broken(v2: Path) -> None:
    edit_line(v2 / "meta/episodes.jsonl", 1, length=4)
    broken: dict[int, str] = {}
    dataset = LeRobotDataset(v2, broken=broken)
    assert set(broken) == {1}
    assert [dataset.episode_length(e) for e in range(4)] == [LENGTHS[0], 0, *LENGTHS[2:]]


def test_a_length_that_only_the_rows_contradict_is_found_on_reading(v2: Path) -> None:
    edit_line(v2 / "meta/episodes.jsonl", 1, length=4)
    edit_json(v2 / layout.INFO, total_frames=sum(LENGTHS) - LENGTHS[1] + 4)
    with pytest.raises(UserError, match="has 30 rows of episode 1, not the 4 that meta/ says"):
        LeRobotDataset(v2).episode(1)


def test_tasks_and_statistics_are_checked(v3: Path) -> None:
    edit_json(v3 / layout.STATS, action={"min": [0, None, 0]})
    assert LeRobotDataset(v3).num_episodes == 4  # no reader needs them
    with pytest.raises(UserError, match="stats.json', action: 'min' is .*; expected numbers"):
        write(v3, range(1), append=True)
    for change, words in (
        (lambda rows: rows[1].update(task=None), "tasks.parquet', row 1: 'task' is null"),
        (lambda rows: rows[1].update(task="wave", task_index=0), "0 is both 'pick red' and 'wave'"),
    ):
        edit_rows(v3 / layout.TASKS, change)
        with pytest.raises(UserError, match=words):
            LeRobotDataset(v3)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "'git lfs pull'"),
        (b"<!DOCTYPE html><html>404</html>", "is a web page, not "),
        (b"", "is empty: copy it again"),
    ],
    ids=["a pointer", "a web page", "empty"],
)
@pytest.mark.parametrize("file", [DATA, EPISODES, f"{WRIST}chunk-000/file-000.mp4"])
def test_what_is_there_instead_of_a_file_is_named(
    v3: Path, file: str, content: bytes, words: str
) -> None:
    """A clone without Git LFS, a download that was refused, a copy that was cut off."""
    (v3 / file).write_bytes(content)
    with pytest.raises(UserError, match=f"file-000.*{words}"):
        dataset = LeRobotDataset(v3)
        dataset.episode(0)
        dataset.frames(0, "wrist", [0])


def test_a_task_that_is_null_is_named_as_such(v3: Path) -> None:
    edit_rows(v3 / DATA, lambda rows: rows[14].update(task_index=None))
    with pytest.raises(UserError, match="task_index is null in episode 1, row 3"):
        LeRobotDataset(v3).episode(1)


@pytest.mark.parametrize("mark", [b"\xef\xbb\xbf", b""], ids=["byte order mark", "none"])
@pytest.mark.parametrize("task", ["pick\u2028blue", "pick\x85blue", "pose le bol à côté"])
def test_lines_end_where_json_lines_end(v2: Path, task: str, mark: bytes) -> None:
    """An instruction may hold what other programs take for the end of a line."""
    path = v2 / "meta/tasks.jsonl"
    lines = [{"task_index": 0, "task": "pick red"}, {"task_index": 1, "task": task}]
    text = "\r\n".join(json.dumps(line, ensure_ascii=False) for line in lines)
    path.write_bytes(mark + text.encode())
    assert LeRobotDataset(v2).episode(1).task == task


def test_a_name_on_the_hub_is_recognised() -> None:
    for read in (LeRobotDataset, lambda name: open_sources([SourceConfig(name)], 8, False)):
        with pytest.raises(UserError, match="hf download lerobot/pusht --repo-type dataset"):
            read("lerobot/pusht")


def test_rows_that_are_no_vectors_of_numbers_are_named(v3: Path) -> None:
    edit_rows(v3 / DATA, lambda rows: rows[14].update({layout.STATE: [1.0, 2.0]}))
    edit_rows(v3 / DATA, lambda rows: rows[45].update({layout.ACTION: [1.0, np.inf, 2.0]}))
    edit_rows(v3 / DATA, lambda rows: rows[60].update({layout.ACTION: None}))
    dataset = LeRobotDataset(v3)
    np.testing.assert_array_equal(dataset.episode(0).action, episode(0)["action"])
    for e, words in {
        1: "observation.state has 2 numbers instead of 3 in episode 1, row 3",
        2: "action is not finite in episode 2, row 4, 'b'",
        3: "action has 0 numbers instead of 3 in episode 3, row 12",
    }.items():
        with pytest.raises(UserError, match=words):
            dataset.episode(e)


def test_other_columns_can_hold_state_action_and_images(v3: Path) -> None:
    for old, new in (
        (layout.STATE, "state"),
        (layout.ACTION, "actions"),
        (layout.IMAGES + "wrist", "hand_image"),
    ):
        rename_feature(v3, old, new)
    assert not LeRobotDataset(v3).state_names
    dataset = LeRobotDataset(v3, Columns("state", "actions", {"wrist": "hand_image"}))
    assert dataset.state_names == dataset.action_names == NAMES and dataset.views == ("wrist",)
    np.testing.assert_array_equal(dataset.episode(1).action, episode(1)["action"])
    assert dataset.frames(1, "wrist", [2]).shape == (1, SIZE, SIZE, 3)
    (source,) = open_sources([SourceConfig(str(v3), images={"wrist": "hand_image"})], 8, False)
    assert source.views == ["wrist"]


@pytest.mark.parametrize(
    "names",
    [
        ("observation.qpos", "action.joint_pos", "observation.images.cam_high"),
        ("observation/state", "action/absolute", "observation/image"),
        ("observation.state.arm", "leader", "top"),
        ("proprio", "observation.state", "image_0"),  # the name of the state, for the action
    ],
)
def test_features_may_have_any_names(v3: Path, names: tuple[str, str, str]) -> None:
    for old, new in zip((layout.STATE, layout.ACTION, layout.IMAGES + "wrist"), names, strict=True):
        rename_feature(v3, old, new)
    dataset = LeRobotDataset(v3, Columns(names[0], names[1], {"hand": names[2]}))
    np.testing.assert_array_equal(dataset.episode(1).state, episode(1)["state"])
    np.testing.assert_array_equal(dataset.episode(1).action, episode(1)["action"])
    assert dataset.frames(1, "hand", [2]).shape == (1, SIZE, SIZE, 3)


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        (Columns(images={"top": "image"}), "no video 'image'; it has: .*third_person, .*wrist"),
        (Columns(state=layout.IMAGES + "wrist"), r"video of shape \[32, 32, 3\], is not a vector"),
    ],
)
def test_columns_that_do_not_fit_are_named(v3: Path, columns: Columns, words: str) -> None:
    with pytest.raises(UserError, match=words):
        LeRobotDataset(v3, columns)


def test_two_cameras_with_one_name_have_to_be_named(v3: Path) -> None:
    rename_feature(v3, layout.IMAGES + "wrist", "observation.third_person")
    with pytest.raises(UserError, match="would both be view 'third_person': name them"):
        LeRobotDataset(v3)


@pytest.mark.parametrize(
    ("names", "read"),
    [
        ({"x": 0, "z": 2, "y": 1}, ["x", "y", "z"]),  # name -> number of the column
        ({"arm": ["x", "y"], "hand": ["z"]}, ["x", "y", "z"]),
        ([["x", "y", "z"]], ["x", "y", "z"]),
        ([1, 2, 3], ["1", "2", "3"]),
        (["state"], ["0", "1", "2"]),  # one name for the whole vector
        ({"motors": None}, ["0", "1", "2"]),
        (["x", "x", "y"], "has the name 'x' twice"),
        (["x", None, "y"], "has a column without a name"),
    ],
)
def test_names_of_columns_are_read_in_each_form(v3: Path, names: Any, read: Any) -> None:
    features = json.loads((v3 / layout.INFO).read_text())["features"]
    features[layout.STATE]["names"] = names
    edit_json(v3 / layout.INFO, features=features)
    if isinstance(read, list):
        assert LeRobotDataset(v3).state_names == read
    else:
        with pytest.raises(UserError, match=read):
            LeRobotDataset(v3)
    assert (
        LeRobotDataset(v3, Columns(state="")).state_names == []
    )  # what is not read is not checked


def test_a_data_set_with_other_task_numbers_is_read_but_not_continued(v3: Path) -> None:
    edit_rows(v3 / layout.TASKS, lambda rows: rows[1].update(task_index=5))
    edit_rows(v3 / DATA, set_task(0, 5))
    assert LeRobotDataset(v3).episode(1).task == "pick blue"
    with pytest.raises(UserError, match="not numbered from 0 on"):
        write(v3, range(1), append=True)
