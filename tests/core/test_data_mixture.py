"""Mixtures: sources keep their weight, stride and split; both ways of reading agree; what is broken
is left out, counted and named.
"""

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from video_fixtures import write_video

from alam_core.data.faults import find_faults
from alam_core.data.frames import FrameStore, OnDemandFrames, frame_store
from alam_core.data.images import resize_images
from alam_core.data.lerobot import LeRobotDataset, LeRobotWriter
from alam_core.data.mixture import SourceConfig, VideoSource, open_sources
from alam_core.data.report import DataReport
from alam_core.data.video.folder import VideoFolder
from alam_core.errors import UserError

LENGTHS = (14, 9, 23, 12)


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LeRobot set of two views and a folder of videos, in one folder."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    with LeRobotWriter(
        root / "robot", 10, {"top": (24, 24), "side": (24, 24)}, ["x"], ["u"], "toy"
    ) as writer:
        for length in LENGTHS:
            images = {
                view: rng.integers(0, 256, (length, 24, 24, 3), np.uint8)
                for view in ("top", "side")
            }
            writer.add_episode(images, np.zeros((length, 1)), np.zeros((length, 1)), "go")
    for e, length in enumerate(LENGTHS):
        write_video(root / f"films/{e}.mp4", length, e)
    return root


@pytest.fixture
def root(originals: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(originals, tmp_path / "data"))


def split_video(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


@pytest.mark.parametrize("name", ["robot", "films"])
def test_store_and_on_demand_give_the_same_frames(root: Path, name: str) -> None:
    dataset = LeRobotDataset(root / name) if name == "robot" else VideoFolder(root / name)
    store = frame_store(dataset, dataset.views[0], 12)
    lazy = OnDemandFrames(dataset, dataset.views[0], 12)
    assert np.array_equal(store.starts, lazy.starts) and np.array_equal(store.lengths, lazy.lengths)
    # Rows of all episodes, in any order, some twice.
    rows = np.random.default_rng(1).integers(0, sum(LENGTHS), 40)
    assert np.array_equal(store.array[rows], lazy.array[rows])
    assert np.array_equal(lazy.array[int(rows[0])], store.array[rows[0]])
    assert np.array_equal(
        store.episode(1), resize_images(dataset.frames(1, dataset.views[0], range(LENGTHS[1])), 12)
    )


@pytest.mark.parametrize("cache", [True, False])
def test_open_sources_survive_pickling_to_a_worker(root: Path, cache: bool) -> None:
    (source,) = open_sources([SourceConfig(str(root / "robot"))], 12, cache)
    packed = pickle.dumps(source)
    assert len(packed) < 5000  # metadata travel, but no frames
    again = pickle.loads(packed)
    for before, after in zip(source.frames, again.frames, strict=True):
        assert np.array_equal(before.array[np.array([3, 30])], after.array[np.array([3, 30])])


def test_views_names_and_the_cache_limit_are_honoured(root: Path) -> None:
    configs = [
        SourceConfig(str(root / "robot"), 3.0, 2, ["side"], "arm"),
        SourceConfig(str(root / "films")),
    ]
    arm, films = open_sources(configs, 12, False)
    assert (arm.name, arm.weight, arm.stride, arm.views) == (
        "arm",
        3.0,
        2,
        ["side"],
    ) and films.name == "films"
    size = sum(LENGTHS) * 12 * 12 * 3
    for limit, kinds in {
        0.0: (0, 0),
        1.5 * size: (0, 1),
        3 * size: (1, 1),
    }.items():  # the arm's two views take two sizes
        sources = open_sources(
            [SourceConfig(str(root / "robot")), SourceConfig(str(root / "films"))], 12, limit / 1e9
        )
        assert tuple(isinstance(source.frames[0], FrameStore) for source in sources) == kinds


@pytest.mark.parametrize(
    ("configs", "words"),
    [
        ([SourceConfig("robot", views=["back"])], "no view 'back'; it has: top, side"),
        ([SourceConfig("nowhere")], "nowhere' is not a folder"),
        ([SourceConfig("robot"), SourceConfig("robot")], "two sources are called 'robot'"),
        ([SourceConfig("robot", stride=0)], "stride of .* is 0"),
        ([SourceConfig("robot", weight=0.0)], "weight of .* is 0"),
        ([SourceConfig("robot/videos/empty")], "holds no video file"),
        ([SourceConfig("")], "holds the data sets more/robot, robot: give one of them, or"),
    ],
)
def test_a_source_that_cannot_be_opened_raises_one_line(
    root: Path, configs: list[SourceConfig], words: str
) -> None:
    (root / "robot/videos/empty").mkdir()
    shutil.copytree(root / "robot/meta", root / "more/robot/meta")
    with pytest.raises(UserError, match=words):
        open_sources(
            [SourceConfig(str(root / c.path), c.weight, c.stride, c.views) for c in configs],
            12,
            False,
        )


@pytest.mark.parametrize("cache", [True, False])
def test_a_missing_video_and_a_truncated_one_are_found_on_opening(root: Path, cache: bool) -> None:
    split_video(root / "films/1.mp4", 0.5)
    (root / "films/3.mp4").write_bytes(b"")
    (source,) = open_sources([SourceConfig(str(root / "films"))], 12, cache)
    assert (
        list(source.broken) == [1, 3]
        and "1.mp4" in source.broken[1]
        and "3.mp4" in source.broken[3]
    )
    assert source.intact(np.arange(4)).tolist() == [0, 2]
    again = open_sources([SourceConfig(str(root / "films"))], 12, cache)[0]
    assert again.broken == source.broken


def test_a_truncated_file_of_many_episodes_loses_only_those_after_the_cut(root: Path) -> None:
    split_video(root / "robot/videos/observation.images.top/chunk-000/file-000.mp4", 0.7)
    dataset = LeRobotDataset(root / "robot")
    faults = find_faults(dataset, "top")
    assert set(faults) == {2, 3} and "cut short" in faults[3] and not find_faults(dataset, "side")
    (source,) = open_sources([SourceConfig(str(root / "robot"))], 12, True)
    assert set(source.broken) == {2, 3}
    assert np.array_equal(
        source.frames[0].array[np.array([3, 20])],
        OnDemandFrames(dataset, "top", 12).array[np.array([3, 20])],
    )
    assert not source.frames[0].array[25:].any()  # black
    # A caller that cannot leave episodes out gets an error, even if the store exists already.
    with pytest.raises(UserError, match="file-000"):
        frame_store(dataset, "top", 12)


def test_a_video_that_is_missing_or_shorter_than_promised_is_found(root: Path) -> None:
    info = json.loads((root / "robot/meta/info.json").read_text())
    assert info["total_episodes"] == 4
    (root / "robot/videos/observation.images.side/chunk-000/file-000.mp4").unlink()
    assert set(find_faults(LeRobotDataset(root / "robot"), "side")) == {0, 1, 2, 3}
    write_video(
        root / "robot/videos/observation.images.side/chunk-000/file-000.mp4", sum(LENGTHS) - 3
    )
    faults = find_faults(LeRobotDataset(root / "robot"), "side")
    assert set(faults) == {3} and "55 frames, 58 are needed" in faults[3]


def test_damage_found_while_decoding_is_stored_with_the_frames(root: Path) -> None:
    path = root / "films/2.mp4"
    content = bytearray(path.read_bytes())
    start = content.index(b"mdat") + 4
    content[start + 200 : start + (len(content) - start) // 2] = bytes(
        len(content[start + 200 : start + (len(content) - start) // 2])
    )
    path.write_bytes(content)
    dataset = VideoFolder(root / "films")
    if 2 in find_faults(dataset, "video"):
        pytest.skip("found before decoding")
    broken: dict[int, str] = {}
    store = frame_store(dataset, "video", 12, broken)
    assert set(broken) == {2} and not store.episode(2).any() and store.episode(3).any()
    again: dict[int, str] = {}
    frame_store(dataset, "video", 12, again)
    assert again == broken


def report(broken: int, short: int, share: float, episodes: int = 20) -> DataReport:
    frames = FrameStore(
        np.zeros((0, 2, 2, 3), np.uint8), np.zeros(episodes, int), np.full(episodes, 30)
    )
    source = VideoSource("toy", [frames], broken={e: f"episode {e} is torn" for e in range(broken)})
    return DataReport([source], [[19 - e for e in range(short)]], [[]], share)


def test_training_stops_only_above_max_broken() -> None:
    report(1, 0, 0.05)
    report(1, 1, 0.1)
    with pytest.raises(
        UserError,
        match=r"2 broken of 20 episodes of 'toy'.*"
        r"--max_broken 0\.05.*episode 0 is torn",
    ):
        report(2, 0, 0.05)
    with pytest.raises(UserError, match="0 broken and 3 too short"):
        report(0, 3, 0.1)
    late = report(0, 0, 0.1)
    late.add(0, 4, "torn", 1)
    late.add(0, 4, "torn", 1)
    late.add(0, 5, "torn")
    assert late.replaced == [2]
    with pytest.raises(UserError, match="3 broken"):
        late.add(0, 6, "torn")


def test_the_report_names_what_was_left_out_and_merges_the_findings_of_other_processes() -> None:
    mine, other = report(1, 1, 0.5), report(1, 1, 0.5)
    mine.add(0, 7, "episode 7 is torn", 3)
    other.add(0, 8, "episode 8 is torn", 2)
    mine.merge([mine.found(), other.found()])
    (row,) = mine.to_dict()["sources"]
    assert (
        [fault["episode"] for fault in row["broken"]] == [0, 7, 8]
        and row["too_short"] == [19]
        and row["triplets_replaced"] == 5
    )
    (line,) = mine.summary()
    assert (
        "3 broken" in line
        and "episode 7 is torn" in line
        and "1 too short" in line
        and "19" in line
    )
    json.dumps(mine.to_dict())
