"""LeRobot data sets: the reader returns what was written, in LeRobot's layout, and names faults."""

import json
import os
import pickle
import shutil
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from alam_core.data.frames import frame_store
from alam_core.data.images import resize_images
from alam_core.data.lerobot import LeRobotDataset, LeRobotWriter, layout
from alam_core.data.video import VideoWriter
from alam_core.errors import UserError

SIZE = 32
LENGTHS = (11, 30, 7, 19)
NAMES = ["a", "b", "c"]


def picture(length: int, phase: float) -> np.ndarray:
    """A moving coloured square on a slope of grey, with hard edges as renderers draw them: uint8
    (T, SIZE, SIZE, 3).
    """
    frames = (
        np.broadcast_to(np.linspace(60, 190, SIZE)[None, :, None, None], (length, SIZE, SIZE, 3))
        .astype(np.uint8)
        .copy()
    )
    for t in range(length):
        x, y = int(10 + 8 * np.sin(phase + t / 5)), int(10 + 8 * np.cos(phase + t / 7))
        frames[t, y : y + 9, x : x + 9] = ((220, 40, 30), (30, 60, 220), (40, 190, 60))[
            int(phase) % 3
        ]
    return frames


def episode(k: int) -> dict:
    rng = np.random.default_rng(k)
    length = LENGTHS[k]
    return {
        "images": {"third_person": picture(length, k), "wrist": picture(length, k + 1.5)},
        "state": rng.normal(size=(length, 3)).astype(np.float32),
        "action": rng.normal(size=(length, 3)).astype(np.float32),
        "task": ("pick red", "pick blue")[k % 2],
        "extra": {"seed": 100 + k},
    }


def open_writer(root: Path, append: bool = False, fps: float = 10) -> LeRobotWriter:
    return LeRobotWriter(
        root,
        fps,
        {"third_person": (SIZE, SIZE), "wrist": (SIZE, SIZE)},
        NAMES,
        NAMES,
        "robot",
        append,
    )


def write(root: Path, episodes: range = range(4), append: bool = False) -> None:
    with open_writer(root, append) as writer:
        for k in episodes:
            writer.add_episode(**episode(k))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "set"
    write(root)
    return root


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "set"))


def check_content(dataset: LeRobotDataset) -> None:
    assert dataset.num_episodes == 4 and dataset.num_frames == sum(LENGTHS)
    assert dataset.views == ("third_person", "wrist") and dataset.fps == 10.0
    for k in range(4):
        wanted = episode(k)
        arrays = dataset.episode(k)
        assert np.array_equal(arrays.state, wanted["state"]) and np.array_equal(
            arrays.action, wanted["action"]
        )
        assert arrays.task == wanted["task"] and dataset.episode_length(k) == LENGTHS[k]
        for view, images in wanted["images"].items():
            error = dataset.frames(k, view, range(LENGTHS[k])).astype(float) - images
            assert 10 * np.log10(255**2 / (error**2).mean()) > 38  # dB


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
            header = (
                stream.codec_context.extradata
            )  # of the mp4: 6 bytes, length and sequence parameters, 1 byte, length and picture's
            picture = header[6 + 2 + int.from_bytes(header[6:8], "big") + 3 :]
            assert (
                picture[0] & 31 == 8 and picture[1] & 0b11100000 == 0b11000000
            )  # two numbers 0, then 0 for CAVLC


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


def test_a_data_set_can_be_pickled_to_another_process(whole: Path) -> None:
    dataset = LeRobotDataset(whole)
    first = dataset.frames(0, "wrist", [3])
    again = pickle.loads(pickle.dumps(dataset))
    assert np.array_equal(again.frames(0, "wrist", [3]), first)


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


def test_a_folder_that_is_no_data_set_is_named(tmp_path: Path, copy: Path) -> None:
    with pytest.raises(UserError, match="not a LeRobot data set"):
        LeRobotDataset(tmp_path)
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


def test_an_append_without_episodes_leaves_the_data_set_as_it_was(tmp_path: Path) -> None:
    write(tmp_path / "set", range(2))
    before = {path: path.read_bytes() for path in (tmp_path / "set").rglob("*.json")}
    open_writer(tmp_path / "set", append=True).close()
    assert before == {path: path.read_bytes() for path in (tmp_path / "set").rglob("*.json")}
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
