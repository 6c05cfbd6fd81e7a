"""The writer of LeRobot data sets: appending, and what a killed or failed run leaves."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from lerobot_fixtures import (
    check_content,
    episode,
    open_writer,
    picture,
    write,
)

from alam_core.data.lerobot import LeRobotDataset, layout
from alam_core.errors import UserError


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "set"
    write(root)
    return root


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "set"))


def test_appending_gives_the_same_data_as_writing_at_once(whole: Path, tmp_path: Path) -> None:
    root = tmp_path / "set"
    write(root, range(1))
    write(root, range(1, 3), append=True)
    write(root, range(3, 4), append=True)
    dataset = LeRobotDataset(root)
    check_content(dataset)
    assert dataset.extras["seed"] == [100, 101, 102, 103]
    once, twice = (json.loads((folder / layout.STATS).read_text()) for folder in (whole, root))
    for feature in once:
        for name in once[feature]:
            np.testing.assert_allclose(
                twice[feature][name], once[feature][name], rtol=1e-9, atol=1e-12
            )


def test_an_append_killed_while_it_moved_files_into_place_can_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "set"
    write(root, range(2))
    replace = os.replace

    def killed(source: Path, target: Path) -> None:
        if Path(target).name == Path(layout.INFO).name:
            raise RuntimeError("killed")
        replace(source, target)

    writer = open_writer(root, append=True)
    writer.add_episode(**episode(3))
    with monkeypatch.context() as patch, pytest.raises(RuntimeError):
        patch.setattr("alam_core.files.os.replace", killed)
        writer.close()
    os.close(writer._lock)  # as the end of the process does
    assert LeRobotDataset(root).num_episodes == 2
    write(root, range(2, 4), append=True)
    check_content(LeRobotDataset(root))


def test_a_new_shard_begins_at_the_size_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout, "DATA_FILE_MB", 0.002)
    monkeypatch.setattr(layout, "VIDEO_FILE_MB", 0.002)
    monkeypatch.setattr(layout, "FILES_PER_CHUNK", 2)
    root = tmp_path / "set"
    write(root)
    assert len(list(root.glob("data/*/*.parquet"))) > 1
    assert (root / "videos/observation.images.wrist/chunk-001/file-000.mp4").is_file()
    check_content(LeRobotDataset(root))


def test_an_interrupted_writer_leaves_no_data_set(tmp_path: Path) -> None:
    root = tmp_path / "set"
    with pytest.raises(RuntimeError), open_writer(root) as writer:
        writer.add_episode(**episode(0))
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_killing_the_writer_leaves_no_data_set_and_the_next_run_cleans_up(tmp_path: Path) -> None:
    root = tmp_path / "set"
    child = os.fork()
    if child == 0:
        writer = open_writer(root)
        writer.add_episode(**episode(0))
        os._exit(9)  # no clean-up of any kind
    os.waitpid(child, 0)
    assert not root.exists()
    with pytest.raises(UserError, match="interrupted"):
        LeRobotDataset(root)
    write(root)
    check_content(LeRobotDataset(root))
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_a_failed_append_leaves_the_old_data_as_they_were(copy: Path) -> None:
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    with pytest.raises(RuntimeError), open_writer(copy, append=True) as writer:
        writer.add_episode(**episode(0))
        raise RuntimeError
    assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == before


def test_only_one_writer_at_a_time(tmp_path: Path) -> None:
    first = open_writer(tmp_path / "set")
    with pytest.raises(UserError, match="another process"):
        open_writer(tmp_path / "set")
    first.abort()


def test_the_writer_refuses_arrays_that_do_not_fit(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="exists already"):
        open_writer(whole)
    with pytest.raises(UserError, match="other features or another rate"):
        open_writer(whole, append=True, fps=20)
    with pytest.raises(UserError, match="no episode"):
        open_writer(tmp_path / "empty").close()
    with open_writer(tmp_path / "set") as writer:
        for name, value in (
            ("state", np.zeros((11, 2))),
            ("action", np.full((11, 3), np.nan)),
            ("images", {"wrist": picture(11, 0)}),
        ):
            with pytest.raises(ValueError, match=r"shape|finite|needed"):
                writer.add_episode(**{**episode(0), name: value})
        writer.add_episode(**episode(0))
    assert LeRobotDataset(tmp_path / "set").num_episodes == 1


def test_an_append_without_episodes_leaves_the_data_set_as_it_was(tmp_path: Path) -> None:
    write(tmp_path / "set", range(2))
    before = {path: path.read_bytes() for path in (tmp_path / "set").rglob("*.json")}
    open_writer(tmp_path / "set", append=True).close()
    assert before == {path: path.read_bytes() for path in (tmp_path / "set").rglob("*.json")}
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
