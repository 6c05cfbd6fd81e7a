"""Every check of a data set on disk, its rows and videos, finds the fault that it is for."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from check_fixtures import FPS, numbers, pictures, state, write

from alam_core.data.checks import (
    check_episodes,
    check_frames,
    check_numbers,
    check_videos,
    read_recorded,
    sample_frames,
)
from alam_core.data.lerobot import LeRobotDataset
from alam_core.data.video import VideoFolder, VideoWriter

STILL = np.zeros((1, 7))  # an arm that does not move


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("data") / "clean")


@pytest.fixture
def own(root: Path, tmp_path: Path) -> Path:
    """A copy that a test may break."""
    shutil.copytree(root, tmp_path / "own", ignore=shutil.ignore_patterns(".cache"))
    return tmp_path / "own"


def test_clean_videos_give_no_finding(root: Path) -> None:
    dataset = LeRobotDataset(root)
    recorded, broken = read_recorded(dataset)
    assert not broken and len(recorded.episodes) == 3
    for thorough in (False, True):
        samples, undecoded = sample_frames(dataset, (), thorough)
        assert [len(sample.rows) for sample in samples] == [30 if thorough else 6] * 6
        assert not undecoded + check_videos(dataset) + check_frames(samples, recorded)


def change_column(file: Path, name: str, values: list[float]) -> None:
    table = pq.read_table(file, partitioning=None)
    at = table.schema.get_field_index(name)
    kind = table.schema.field(at).type
    pq.write_table(table.set_column(at, table.schema.field(at), pa.array(values, kind)), file)


def test_rows_at_another_rate_than_stated_are_found(own: Path) -> None:
    info = json.loads((own / "meta/info.json").read_text())
    for fps in (5, 100):  # at 100 rows per second, the arm would be too fast
        (own / "meta/info.json").write_text(json.dumps(info | {"fps": fps}))
        dataset = LeRobotDataset(own)
        recorded, _ = read_recorded(dataset)
        state(0, lambda x: 2 * x, range(3))(recorded)
        (finding,) = check_numbers(recorded) + check_videos(dataset)
        assert finding.level == "error" and "stamped at 10 per second" in finding.message
        assert "as the videos of third_person, wrist are" in finding.message


def test_videos_of_all_views_at_another_rate_are_one_finding(own: Path) -> None:
    info = json.loads((own / "meta/info.json").read_text())
    (own / "meta/info.json").write_text(json.dumps(info | {"fps": 5}))
    (file,) = (own / "data").rglob("*.parquet")
    change_column(file, "timestamp", (np.tile(np.arange(30), 3) / 5).tolist())
    (finding,) = check_videos(LeRobotDataset(own))
    assert "at 10 frames per second, another rate than the table's 5 rows" in finding.message


def test_lost_rows_show_in_the_stamps(own: Path) -> None:
    (file,) = (own / "data").rglob("*.parquet")
    stamps = np.tile(np.arange(30) / FPS, 3)
    stamps[45:60] += 0.7
    change_column(file, "timestamp", stamps.tolist())
    (finding,) = check_videos(LeRobotDataset(own))
    assert finding.level == "warning" and "episode 1" in finding.where
    assert "up to 0.8 s" in finding.message


def test_stamps_that_begin_late_are_found_unless_the_rows_are_broken(own: Path) -> None:
    (file,) = (own / "data").rglob("*.parquet")
    change_column(file, "timestamp", (np.tile(np.arange(30), 3) / FPS + 0.5).tolist())
    (finding,) = check_videos(LeRobotDataset(own))
    assert finding.where == "timestamp, episodes 0, 1, 2"
    assert "the first row is stamped 0.5 s, not 0 s" in finding.message
    (finding,) = check_videos(LeRobotDataset(own), unread=[0, 2])
    assert finding.where == "timestamp, episode 1"


def test_a_missing_table_is_an_error(own: Path) -> None:
    (file,) = (own / "data").rglob("*.parquet")
    file.write_bytes(file.read_bytes()[:200])
    recorded, (finding,) = read_recorded(LeRobotDataset(own))
    assert finding.level == "error" and "2 more like this" in finding.message
    assert not recorded.episodes and not check_episodes(recorded)  # said once


def encode(file: Path, frames: int, state: np.ndarray = STILL) -> None:
    writer = VideoWriter(file, FPS, 32, 32)
    writer.add(pictures(np.resize(state, (frames, 7))))
    writer.close()


def test_a_video_of_other_length_than_the_table_is_found(own: Path) -> None:
    (file,) = (own / "videos/observation.images.wrist").rglob("*.mp4")
    encode(file, 95)
    (finding,) = check_videos(LeRobotDataset(own))
    assert finding.level == "warning" and "by 5" in finding.message
    encode(file, 80)
    (finding,) = check_videos(LeRobotDataset(own))
    assert finding.level == "error" and "has 80 frames, 90 are needed" in finding.message


def test_episodes_that_share_frames_are_found(own: Path) -> None:
    (file,) = (own / "meta/episodes").rglob("*.parquet")
    change_column(file, "videos/observation.images.wrist/from_timestamp", [0.0, 2.0, 6.0])
    (finding,) = check_videos(LeRobotDataset(own))
    assert finding.level == "error" and "both claim frames 20 to 29" in finding.message


def test_a_video_that_cannot_be_decoded_is_an_error(own: Path) -> None:
    (file,) = (own / "videos/observation.images.wrist").rglob("*.mp4")
    file.write_bytes(b"no video")
    samples, undecoded = sample_frames(LeRobotDataset(own))
    (finding,) = check_videos(LeRobotDataset(own))  # said once
    assert (
        not undecoded
        and finding.level == "error"
        and "view 'wrist', episodes 0, 1, 2" in finding.where
    )
    assert {sample.view for sample in samples} == {"third_person"}


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (np.zeros((30, 32, 32, 3), np.uint8), "black or of one colour"),
        (pictures(np.zeros((30, 7))), "the same although the arm moves"),
    ],
    ids=["black", "frozen"],
)
def test_a_view_without_a_picture_is_an_error(
    images: np.ndarray, words: str, tmp_path: Path
) -> None:
    dataset = LeRobotDataset(write(tmp_path / "set", wrist=images))
    recorded, _ = read_recorded(dataset)
    samples, _ = sample_frames(dataset)
    (finding,) = check_frames(samples, recorded)
    assert finding.level == "error" and "'wrist'" in finding.where and words in finding.message


def test_a_camera_that_starts_black_is_a_warning_that_names_the_rows(tmp_path: Path) -> None:
    state, _ = numbers(0)
    images = pictures(state)
    images[0] = 0
    dataset = LeRobotDataset(write(tmp_path / "set", wrist=images))
    (finding,) = check_frames(sample_frames(dataset)[0], read_recorded(dataset)[0])
    assert finding.level == "warning" and "'wrist'" in finding.where
    assert "some frames are black or of one colour (row 0 of episode 0)" in finding.message


def test_one_camera_under_two_names_is_found(tmp_path: Path) -> None:
    state, _ = numbers(0)
    dataset = LeRobotDataset(write(tmp_path / "set", 1, wrist=pictures(state)))
    (finding,) = check_frames(sample_frames(dataset)[0], read_recorded(dataset)[0])
    assert "recorded twice" in finding.message


def test_copies_and_still_pictures_in_a_folder_of_videos_are_found(tmp_path: Path) -> None:
    for e, name in enumerate(("a.mp4", "c.mp4")):
        encode(tmp_path / name, 20, numbers(e)[0])
    shutil.copy(tmp_path / "a.mp4", tmp_path / "b.mp4")
    (finding,) = check_videos(VideoFolder(tmp_path))
    assert "/a.mp4, " in finding.message
    encode(tmp_path / "still.mp4", 20)
    (finding,) = check_frames(sample_frames(VideoFolder(tmp_path))[0])
    assert "still image" in finding.message and finding.where.endswith("episode 3")
