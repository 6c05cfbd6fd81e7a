"""The frames of a video are compared with the rows of its data set before training: another rate,
a late beginning, a varying rate, and episodes between frames or on top of each other are named.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from video_fixtures import numbers, picture, write_video

from alam_core.data.faults import find_faults
from alam_core.data.lerobot import Columns, LeRobotDataset, LeRobotWriter, layout
from alam_core.errors import UserError

LENGTHS = (8, 10, 8)
STARTS = (0, 8, 18)
FRAMES = sum(LENGTHS)
FROM = "videos/observation.images.{}/from_timestamp"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three episodes at 10 rows per second; frame t of view ``cam`` has number t."""
    root = tmp_path_factory.mktemp("data") / "set"
    views = {"cam": (32, 48), "other": (32, 48)}
    with LeRobotWriter(root, 10, views, ["x"], ["u"], "toy") as writer:
        for start, length in zip(STARTS, LENGTHS, strict=True):
            images = np.stack([picture(start + t) for t in range(length)])
            zeros = np.zeros((length, 1))
            writer.add_episode(dict.fromkeys(views, images), zeros, zeros, "go")
    return root


@pytest.fixture
def root(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "set"))


def video(root: Path) -> Path:
    return root / "videos/observation.images.cam/chunk-000/file-000.mp4"


def place(root: Path, starts: list[float]) -> None:
    """Let the episodes begin at these times of the video, in seconds."""
    path = root / "meta/episodes/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    name = FROM.format("cam")
    column = table.column_names.index(name)
    pq.write_table(table.set_column(column, name, pa.array(starts)), path)


def shown(dataset: LeRobotDataset) -> list[int]:
    return [
        number
        for e, length in enumerate(LENGTHS)
        for number in numbers(dataset.frames(e, "cam", range(length)))
    ]


def test_whole_data_sets_have_no_faults(root: Path) -> None:
    dataset = LeRobotDataset(root)
    assert find_faults(dataset, "cam") == find_faults(dataset, "other") == {}
    assert shown(dataset) == list(range(FRAMES))


@pytest.mark.parametrize("b_frames", [0, 2])
def test_other_encodings_of_the_same_frames_have_none_either(root: Path, b_frames: int) -> None:
    write_video(video(root), FRAMES, b_frames=b_frames)
    dataset = LeRobotDataset(root)
    assert find_faults(dataset, "cam") == {} and shown(dataset) == list(range(FRAMES))


def test_frames_and_metadata_that_agree_off_the_grid_are_read(root: Path) -> None:
    """Files joined from episodes begin at the sum of the earlier durations, which drifts."""
    times = [10 * t + 5 * (t >= 8) + 4 * (t >= 18) for t in range(FRAMES)]
    write_video(video(root), FRAMES, fps=100, times=times)
    place(root, [0.0, 0.85, 1.89])
    dataset = LeRobotDataset(root)
    assert find_faults(dataset, "cam") == {} and shown(dataset) == list(range(FRAMES))
    assert numbers(dataset.frames(2, "cam", [7, 0, 3])) == [25, 18, 21]


@pytest.mark.parametrize("fps", [5, 20])
def test_another_rate_is_named(root: Path, fps: int) -> None:
    write_video(video(root), 2 * FRAMES, fps=fps)
    faults = find_faults(LeRobotDataset(root), "cam")
    assert set(faults) == {0, 1, 2}
    words = f"plays at {fps} frames per second, another rate than the table's 10 rows"
    assert all(words in why and "file-000.mp4" in why for why in faults.values())


@pytest.mark.parametrize("b_frames", [0, 2])
@pytest.mark.parametrize(
    ("times", "episodes", "words"),
    [
        ([t + 5 for t in range(FRAMES)], {0}, "begins at 0.50 s, but the episode at 0.00 s"),
        ([t + (t > 13) for t in range(FRAMES)], {1}, "row 6 is due 1.40 s into"),
        ([t + (t > 13) for t in range(FRAMES)], {1}, "frame 14 is shown at 1.50 s"),
    ],
    ids=["late", "gap", "gap"],
)
def test_a_late_beginning_and_gaps_are_named(
    root: Path, times: list[int], episodes: set[int], words: str, b_frames: int
) -> None:
    write_video(video(root), FRAMES, times=times, b_frames=b_frames)
    faults = find_faults(LeRobotDataset(root), "cam")
    assert episodes <= set(faults) and words in faults[min(episodes)]
    with pytest.raises(UserError, match="shows no frame when frame"):
        shown(LeRobotDataset(root))


def test_a_varying_rate_is_named_where_it_is_too_far_off(root: Path) -> None:
    rng = np.random.default_rng(0)
    for jitter, bad in ((15, False), (45, True)):  # in ms, of 100
        times = 100 * np.arange(FRAMES) + rng.integers(-jitter, jitter + 1, FRAMES)
        times[0] = 0
        write_video(video(root), FRAMES, fps=1000, times=times.tolist())
        faults = find_faults(LeRobotDataset(root), "cam")
        assert bool(faults) == bad
        if bad:
            assert all("its rate varies" in why or "between" in why for why in faults.values())
        else:
            assert shown(LeRobotDataset(root)) == list(range(FRAMES))


@pytest.mark.parametrize("off", [0.05, -0.04])
def test_an_episode_that_begins_between_two_frames_is_named(root: Path, off: float) -> None:
    place(root, [0.0, 0.8 + off, 1.8])
    (fault,) = find_faults(LeRobotDataset(root), "cam").items()
    assert fault[0] == 1 and f"begins {0.8 + off:.3f} s into" in fault[1]
    assert "from_timestamp" in fault[1]


def test_an_episode_that_overlaps_another_is_named(root: Path) -> None:
    place(root, [0.0, 0.3, 1.8])
    assert (
        "it and episode 0 both claim frames 3 to 7" in find_faults(LeRobotDataset(root), "cam")[1]
    )
    place(root, [0.0, 0.0, 1.8])  # the same place twice
    assert set(find_faults(LeRobotDataset(root), "cam")) == {1}


def describe(root: Path, **info: object) -> None:
    content = json.loads((root / layout.INFO).read_text())
    content["features"]["observation.images.cam"]["info"].update(info)
    (root / layout.INFO).write_text(json.dumps(content))


def rename(root: Path, view: str) -> None:
    old, new = layout.IMAGES + "cam", layout.IMAGES + view
    (root / layout.INFO).write_text(
        (root / layout.INFO).read_text().replace(f'"{old}"', f'"{new}"')
    )
    path = root / "meta/episodes/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    names = [name.replace(old + "/", new + "/") for name in table.column_names]
    pq.write_table(table.rename_columns(names), path)
    (root / "videos" / old).rename(root / "videos" / new)


@pytest.mark.parametrize(
    ("info", "words"),
    [
        ({"video.is_depth_map": True}, "it is a depth map"),
        ({"is_depth_map": True}, "it is a depth map"),
        ({"video.pix_fmt": "gray12le"}, "deep grey levels.*gray12le"),
        ({"video.pix_fmt": "gray16be"}, "deep grey levels.*gray16be"),
    ],
)
def test_a_view_declared_as_depth_is_left_out_and_refused_by_name(
    root: Path, info: dict[str, object], words: str
) -> None:
    describe(root, **info)
    dataset = LeRobotDataset(root)
    assert dataset.views == ("other",) and set(dataset.left_out) == {"cam"}
    assert dataset.frames(1, "other", [0]).shape == (1, 32, 48, 3)
    for attempt in (
        lambda: dataset.frames(0, "cam", [0]),
        lambda: find_faults(dataset, "cam"),
        lambda: LeRobotDataset(root, Columns(images={"top": layout.IMAGES + "cam"})),
    ):
        with pytest.raises(UserError, match=words):
            attempt()


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("depth", False),
        ("wrist_depth", False),
        ("top.mask", False),
        ("rgb", True),
        ("depth_camera_rgb", True),
        ("in_depth0", False),
        ("depths_of_field", True),
    ],
)
def test_a_view_named_as_depth_or_mask_is_used_only_if_asked_for(
    root: Path, name: str, kept: bool
) -> None:
    rename(root, name)
    dataset = LeRobotDataset(root)
    view = name.replace(".", "_")
    assert (view in dataset.views) == kept and (view in dataset.left_out) != kept
    assert numbers(dataset.frames(1, view, [2])) == [10]
    named = LeRobotDataset(root, Columns(images={"top": layout.IMAGES + name}))
    assert named.views == ("top",) and not named.left_out


def test_depth_that_only_the_file_knows_of_is_named(root: Path) -> None:
    video(root).unlink()
    write_video(video(root).with_suffix(".mkv"), FRAMES, pix_fmt="gray16le")
    video(root).with_suffix(".mkv").rename(video(root))
    faults = find_faults(LeRobotDataset(root), "cam")
    assert set(faults) == {0, 1, 2} and "16-bit grey levels" in faults[0]
