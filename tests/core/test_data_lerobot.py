"""LeRobot data sets: the reader returns what was written, in LeRobot's layout, and names faults."""

import json
import pickle
import shutil
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lerobot_fixtures import (
    LENGTHS,
    NAMES,
    SIZE,
    check_content,
    episode,
    write,
)

from alam_core.data.frames import frame_store
from alam_core.data.images import resize_images
from alam_core.data.lerobot import LeRobotDataset, layout
from alam_core.data.video import VideoWriter
from alam_core.errors import UserError


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "set"
    write(root)
    return root


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "set"))


def test_a_data_set_reads_back_as_it_was_written(whole: Path) -> None:
    dataset = LeRobotDataset(whole)
    check_content(dataset)
    assert dataset.extras["seed"] == [100, 101, 102, 103]
    assert dataset.state_names == dataset.action_names == NAMES


def test_frames_come_in_the_order_of_the_indices_independent_of_earlier_reads(whole: Path) -> None:
    dataset = LeRobotDataset(whole)
    rng = np.random.default_rng(0)
    every = [dataset.frames(k, "wrist", range(LENGTHS[k])) for k in range(4)]
    for _ in range(60):
        k = int(rng.integers(4))
        indices = rng.integers(0, LENGTHS[k], rng.integers(1, 6))
        assert np.array_equal(dataset.frames(k, "wrist", indices), every[k][indices])


def test_reading_any_frame_decodes_at_most_two_frames(whole: Path) -> None:
    """A key frame every other frame, shown in the order they are stored in, with the entropy coder
    that is fast to decode.
    """
    dataset = LeRobotDataset(whole)
    for view in dataset.views:
        with av.open(str(dataset.video_files(view)[0])) as container:
            stream = container.streams.video[0]
            packets = [packet for packet in container.demux(stream) if packet.size]
            keys = [packet.is_keyframe for packet in packets]
            assert (
                len(keys) == sum(LENGTHS)
                and all(key or before for before, key in zip(keys, keys[1:], strict=False))
                and not all(keys)
            )
            assert all(packet.pts == packet.dts for packet in packets)
            # The mp4's avcC: 6 bytes, length and sequence parameter set, 1 byte, length and picture
            # parameter set.
            header = stream.codec_context.extradata
            picture = header[6 + 2 + int.from_bytes(header[6:8], "big") + 3 :]
            # Two exp-Golomb codes of the number 0 (bits 1 and 1), then the bit 0 for CAVLC.
            assert picture[0] & 31 == 8 and picture[1] & 0b11100000 == 0b11000000


def test_the_layout_is_the_one_lerobot_documents(whole: Path) -> None:
    info = json.loads((whole / layout.INFO).read_text())
    assert info["codebase_version"] == "v3.0" and info["splits"] == {"train": "0:4"}
    assert (info["total_episodes"], info["total_frames"], info["total_tasks"]) == (
        4,
        sum(LENGTHS),
        2,
    )
    assert (info["chunks_size"], info["data_files_size_in_mb"], info["video_files_size_in_mb"]) == (
        1000,
        100,
        200,
    )
    assert info["features"]["observation.images.wrist"]["info"]["video.codec"] == "h264"
    rows = pq.read_table(whole / "data/chunk-000/file-000.parquet")
    assert set(rows.column_names) == {
        name for name, feature in info["features"].items() if feature["dtype"] != "video"
    }
    assert rows["index"].to_pylist() == list(range(sum(LENGTHS)))
    assert rows["frame_index"].to_pylist() == [t for length in LENGTHS for t in range(length)]
    np.testing.assert_allclose(
        rows["timestamp"].to_numpy(), rows["frame_index"].to_numpy() / 10, atol=1e-6
    )
    tasks = pq.read_table(whole / layout.TASKS)
    assert json.loads(tasks.schema.metadata[b"pandas"])["index_columns"] == ["task"]
    assert [tasks["task"][i].as_py() for i in rows["task_index"].to_pylist()][:1] == ["pick red"]
    meta = pq.read_table(whole / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    assert [row["dataset_to_index"] - row["dataset_from_index"] for row in meta] == list(LENGTHS)
    for row in meta:
        span = (
            row["videos/observation.images.wrist/to_timestamp"]
            - row["videos/observation.images.wrist/from_timestamp"]
        )
        assert span == pytest.approx(row["length"] / 10)


def test_statistics_are_those_of_the_data(whole: Path) -> None:
    stats = json.loads((whole / layout.STATS).read_text())
    state = np.concatenate([episode(k)["state"] for k in range(4)]).astype(np.float64)
    for name, wanted in (
        ("mean", state.mean(0)),
        ("std", state.std(0)),
        ("min", state.min(0)),
        ("max", state.max(0)),
    ):
        np.testing.assert_allclose(stats["observation.state"][name], wanted, rtol=1e-9)
    images = np.concatenate([episode(k)["images"]["wrist"] for k in range(4)]) / 255
    shown = stats["observation.images.wrist"]
    np.testing.assert_allclose(np.array(shown["mean"]).ravel(), images.mean((0, 1, 2)), rtol=1e-9)
    np.testing.assert_allclose(np.array(shown["std"]).ravel(), images.std((0, 1, 2)), rtol=1e-9)
    assert np.array(shown["q50"]).shape == (3, 1, 1)


def test_version_2_1_is_read(tmp_path: Path) -> None:
    root = tmp_path / "old"
    info = {
        "codebase_version": "v2.1",
        "fps": 10,
        "chunks_size": 1000,
        "total_episodes": 4,
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/"
        "episode_{episode_index:06d}.mp4",
        "features": {
            "observation.images.third_person": {"dtype": "video", "shape": [SIZE, SIZE, 3]},
            "observation.images.wrist": {"dtype": "video", "shape": [SIZE, SIZE, 3]},
            "observation.state": {"dtype": "float32", "shape": [3], "names": {"motors": NAMES}},
            "action": {"dtype": "float32", "shape": [3], "names": NAMES},
        },
    }
    (root / "meta").mkdir(parents=True)
    (root / "data/chunk-000").mkdir(parents=True)
    (root / layout.INFO).write_text(json.dumps(info))
    lines = []
    for k in range(4):
        content = episode(k)
        lines.append(
            json.dumps({"episode_index": k, "tasks": [content["task"]], "length": LENGTHS[k]})
        )
        columns = {
            "observation.state": content["state"].tolist(),
            "action": content["action"].tolist(),
            "episode_index": [k] * LENGTHS[k],
        }
        pq.write_table(pa.table(columns), root / f"data/chunk-000/episode_{k:06d}.parquet")
        for view, images in content["images"].items():
            path = root / f"videos/chunk-000/observation.images.{view}/episode_{k:06d}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            video = VideoWriter(path, 10, SIZE, SIZE)
            video.add(images)
            video.close()
    (root / "meta/episodes.jsonl").write_text("\n".join(lines) + "\n")
    dataset = LeRobotDataset(root)
    check_content(dataset)
    assert dataset.state_names == NAMES
    (root / "meta/episodes.jsonl").write_text(lines[0] + '\n{"episode_index": 1, "len')
    with pytest.raises(UserError, match="episodes.jsonl' is broken"):
        LeRobotDataset(root)


@pytest.mark.parametrize(
    ("key", "view"),
    [("observation.image", "image"), ("observation.images.left.rgb", "left_rgb"), ("top", "top")],
)
def test_cameras_under_other_keys_get_names_without_dots(copy: Path, key: str, view: str) -> None:
    old = layout.IMAGES + "wrist"
    (copy / layout.INFO).write_text((copy / layout.INFO).read_text().replace(old, key))
    path = copy / "meta/episodes/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    pq.write_table(
        table.rename_columns([name.replace(old, key) for name in table.column_names]), path
    )
    (copy / "videos" / old).rename(copy / "videos" / key)
    dataset = LeRobotDataset(copy)
    assert dataset.views == ("third_person", view)
    assert dataset.frames(1, view, [2]).shape == (1, SIZE, SIZE, 3)


def test_data_sets_without_states_and_actions_can_be_read_as_video(copy: Path) -> None:
    info = json.loads((copy / layout.INFO).read_text())
    for name in (layout.STATE, layout.ACTION):
        del info["features"][name]
    (copy / layout.INFO).write_text(json.dumps(info))
    arrays = LeRobotDataset(copy).episode(1)
    assert arrays.state.shape == arrays.action.shape == (LENGTHS[1], 0)


def test_a_data_set_can_be_pickled_to_another_process(copy: Path) -> None:
    """Without reading the metadata again: a worker must not fail before it can report a fault."""
    dataset = LeRobotDataset(copy)
    first, state = dataset.frames(0, "wrist", [3]), dataset.episode(1).state
    shutil.rmtree(copy / "meta")
    again = pickle.loads(pickle.dumps(dataset))
    assert np.array_equal(again.frames(0, "wrist", [3]), first)
    assert np.array_equal(again.episode(1).state, state)


def test_a_folder_that_is_no_data_set_is_named(tmp_path: Path, copy: Path) -> None:
    with pytest.raises(UserError, match="not a LeRobot data set.* it holds the data sets set: "):
        LeRobotDataset(tmp_path)
    with pytest.raises(UserError, match="not a LeRobot data set.* give the folder that holds meta"):
        LeRobotDataset(tmp_path / "nowhere")
    info = json.loads((copy / layout.INFO).read_text())
    (copy / layout.INFO).write_text(json.dumps({**info, "codebase_version": "v1.6"}))
    with pytest.raises(UserError, match=r"version v1\.6"):
        LeRobotDataset(copy)
    (copy / layout.INFO).write_text("{")
    with pytest.raises(UserError, match="broken JSON"):
        LeRobotDataset(copy)


def test_missing_and_truncated_files_are_named(copy: Path) -> None:
    dataset = LeRobotDataset(copy)
    with pytest.raises(UserError, match="no view 'top'"):
        dataset.frames(0, "top", [0])
    with pytest.raises(IndexError):
        dataset.frames(0, "wrist", [LENGTHS[0]])
    with pytest.raises(IndexError):
        dataset.frames(0, "wrist", [-1])
    video = copy / "videos/observation.images.wrist/chunk-000/file-000.mp4"
    content = video.read_bytes()
    for share in (0.3, 0.9):
        video.write_bytes(content[: int(len(content) * share)])
        with pytest.raises(UserError, match="wrist"):
            frame_store(LeRobotDataset(copy), "wrist", 8)
        assert not list((copy / ".cache").glob("*"))
    video.unlink()
    with pytest.raises(UserError, match="missing"):
        LeRobotDataset(copy).frames(0, "wrist", [0])
    data = copy / "data/chunk-000/file-000.parquet"
    data.write_bytes(data.read_bytes()[:200])
    with pytest.raises(UserError, match="cannot be read"):
        LeRobotDataset(copy).episode(0)
    data.unlink()
    with pytest.raises(UserError, match="missing"):
        LeRobotDataset(copy).episode(0)


def test_frame_store_holds_every_resized_frame(copy: Path) -> None:
    dataset = LeRobotDataset(copy)
    store = frame_store(dataset, "third_person", 16)
    assert store.array.shape == (sum(LENGTHS), 16, 16, 3)
    for k in range(4):
        wanted = resize_images(dataset.frames(k, "third_person", range(LENGTHS[k])), 16)
        assert np.array_equal(store.episode(k), wanted)
    with pytest.raises(ValueError, match="read-only"):
        store.array[0] = 0


def test_the_frame_store_is_decoded_once_and_again_after_a_change(copy: Path) -> None:
    frame_store(LeRobotDataset(copy), "wrist", 8)
    (cached,) = (copy / ".cache").iterdir()
    stamp = cached.stat().st_mtime_ns
    frame_store(LeRobotDataset(copy), "wrist", 8)
    assert cached.stat().st_mtime_ns == stamp
    write(copy, range(2), append=True)
    assert len(frame_store(LeRobotDataset(copy), "wrist", 8).array) == sum(LENGTHS) + sum(
        LENGTHS[:2]
    )
    assert len(list((copy / ".cache").iterdir())) == 1 and not cached.exists()
