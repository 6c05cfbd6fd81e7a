"""A run that writes a data set: what it leaves when it ends, is interrupted, or fails."""

import json
from pathlib import Path

import numpy as np
import pytest

from alam_core.data.lerobot import LeRobotDataset
from alam_core.errors import UserError
from alam_training.episodes.dataset_run import DatasetRun

RECORD = "meta/run.json"


def add(run: DatasetRun, task: str = "go", value: float = 0.0) -> None:
    images = {"top": np.zeros((3, 16, 16, 3), np.uint8)}
    run.open(images, 10, ["x"], ["u"], "toy")
    run.add(images, np.full((3, 1), value), np.zeros((3, 1)), task, {"seed": 0})


def resumed(root: Path, fps: int = 10) -> DatasetRun:
    run = DatasetRun(root, RECORD, {"settings": {"fps": fps}, "finished": True})
    run.resume(True, {"fps": fps}, "made", "--output", "seed", key="settings")
    return run


@pytest.fixture
def root(tmp_path: Path) -> Path:
    with DatasetRun(tmp_path / "set", RECORD, {"settings": {"fps": 10}}) as run:
        add(run)
    return tmp_path / "set"


def test_a_resumed_run_adds_its_episodes_and_replaces_the_record(root: Path) -> None:
    with resumed(root) as run:
        assert (run.num_episodes, run.num_frames) == (1, 3)
        add(run, task="")
    assert (run.num_episodes, run.num_frames, run.without_instruction) == (2, 6, 1)
    assert LeRobotDataset(root).num_episodes == 2
    assert json.loads((root / RECORD).read_text()) == {"settings": {"fps": 10}, "finished": True}


def test_a_resumed_run_that_adds_nothing_keeps_the_data_set(root: Path) -> None:
    with resumed(root) as run, pytest.raises(ValueError):
        add(run, value=np.nan)
    assert LeRobotDataset(root).num_episodes == 1
    assert json.loads((root / RECORD).read_text())["finished"]
    assert [path.name for path in root.parent.iterdir()] == ["set"]


def test_ctrl_c_keeps_whole_episodes_and_the_record(root: Path) -> None:
    with resumed(root) as run:
        add(run)
        raise KeyboardInterrupt
    assert run.interrupted and LeRobotDataset(root).num_episodes == 2


def test_ctrl_c_before_the_first_episode_propagates(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), DatasetRun(tmp_path / "set", RECORD, {}) as run:
        raise KeyboardInterrupt
    assert not run.interrupted and not list(tmp_path.iterdir())


def test_an_error_discards_what_the_run_added(root: Path) -> None:
    with pytest.raises(UserError, match="broken"), resumed(root) as run:
        add(run)
        raise UserError("broken")
    assert LeRobotDataset(root).num_episodes == 1 and not run.interrupted
    assert "finished" not in json.loads((root / RECORD).read_text())


def test_resuming_is_refused_without_permission_or_with_other_settings(root: Path) -> None:
    run = DatasetRun(root, RECORD, {})
    with pytest.raises(UserError, match="exists already; add --resume true .* another --output"):
        run.resume(False, {"fps": 10}, "made", "--output", "seed", key="settings")
    with pytest.raises(UserError, match="was made with fps = 10, not 20; give the same"):
        resumed(root, fps=20)
    (root / RECORD).write_text("[]")
    with pytest.raises(UserError, match="only data sets made by this script"):
        resumed(root)


def test_a_data_set_of_another_version_is_refused_in_one_line(root: Path) -> None:
    run = DatasetRun(root, RECORD, {})
    with pytest.raises(UserError, match="another version .* no setting order, now 'bgr'.* another"):
        run.resume(True, {"fps": 10, "order": "bgr"}, "made", "--output", "seed", key="settings")
    with pytest.raises(UserError, match="lack their recording, .*: choose another --output"):
        run.resume(True, {"fps": 10}, "made", "--output", "recording", key="settings")
    with pytest.raises(
        UserError, match="or of another version of this program: .* another --output"
    ):
        run.resume(True, {"fps": 10}, "made", "--output", "seed", key="options")


def test_what_a_killed_run_of_any_version_left_is_replaced(tmp_path: Path) -> None:
    left = tmp_path / ".set.partial"
    (left / "of/another/version").mkdir(parents=True)
    (left / "link").symlink_to(tmp_path)
    with DatasetRun(tmp_path / "set", RECORD, {}) as run:
        add(run)
    assert LeRobotDataset(tmp_path / "set").num_episodes == 1 and not left.exists()
    assert not (tmp_path / "set/link").exists() and not (tmp_path / "set/of").exists()
