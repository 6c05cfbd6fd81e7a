"""ROS 2 bags of both kinds, written by the rosbags package, through the converter and back."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from convert_fixtures import check_frames, picture, run
from PIL import Image
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from alam_core.errors import UserError

STORE = get_typestore(Stores.ROS2_JAZZY)
T = STORE.types
BEGIN = 1_700_000_000_000_000_000  # ns
JOINTS = ["joint1", "joint2", "gripper"]
KINDS = {"sqlite3": StoragePlugin.SQLITE3, "mcap": StoragePlugin.MCAP}


def header(t: float | None) -> Any:
    ns = 0 if t is None else BEGIN + round(t * 1e9)
    return T["std_msgs/msg/Header"](T["builtin_interfaces/msg/Time"](ns // 10**9, ns % 10**9), "")


def image_message(
    t: float | None, pixels: np.ndarray, encoding: str = "rgb8", padding: int = 4
) -> Any:
    height, width, channels = pixels.shape
    data = np.zeros((height, width * channels + padding), np.uint8)
    data[:, : width * channels] = pixels.reshape(height, -1)
    return T["sensor_msgs/msg/Image"](
        header(t), height, width, encoding, 0, width * channels + padding, data.ravel()
    )


def jpeg_message(t: float, pixels: np.ndarray) -> Any:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95)
    return T["sensor_msgs/msg/CompressedImage"](
        header(t), "jpeg", np.frombuffer(buffer.getvalue(), np.uint8)
    )


def joint_message(t: float, values: list[float], names: list[str] = JOINTS) -> Any:
    empty = np.zeros(0)
    return T["sensor_msgs/msg/JointState"](header(t), list(names), np.array(values), empty, empty)


def array_message(values: list[float]) -> Any:
    return T["std_msgs/msg/Float64MultiArray"](
        T["std_msgs/msg/MultiArrayLayout"]([], 0), np.array(values)
    )


def position(t: float) -> list[float]:
    return [t, 2 * t + 1, -t]


def write_bag(
    path: Path,
    topics: dict[str, list[tuple[float, Any]]],
    kind: str = "mcap",
    task: str = "",
    compress: bool = False,
) -> Path:
    """A bag of (time of recording in s, message) for each topic, recorded in the order of time."""
    writer = Writer(path, version=9, storage_plugin=KINDS[kind])
    if compress:
        writer.set_compression(CompressionMode.MESSAGE, CompressionFormat.ZSTD)
    if task:
        writer.set_custom_data("task", task)
    with writer:
        connections = {
            topic: writer.add_connection(topic, rows[0][1].__msgtype__, typestore=STORE)
            for topic, rows in topics.items()
        }
        for t, topic, message in sorted(
            ((t, topic, message) for topic, rows in topics.items() for t, message in rows),
            key=lambda row: row[:2],
        ):
            writer.write(
                connections[topic],
                BEGIN + round(t * 1e9),
                STORE.serialize_cdr(message, message.__msgtype__),
            )
    return path


def our_bag(path: Path, seconds: float = 1.0, late: float = 0.03, **options: Any) -> Path:
    """Two cameras at 20 and 30 frames per second, joints at 100; everything is recorded ``late`` by
    as much. Frames show their number.
    """
    third = [
        (t + late, image_message(t, picture(0, i)))
        for i, t in enumerate(np.arange(0, seconds + 0.01, 0.05))
    ]
    wrist = [
        (t + late, image_message(t, picture(1, i, 40, 40)[..., ::-1], "bgr8"))
        for i, t in enumerate(np.arange(0, seconds + 0.01, 1 / 30))
    ]
    joints = [
        (t + late / 2, joint_message(t, position(t))) for t in np.arange(0, seconds + 0.005, 0.01)
    ]
    topics = {
        "/third_person/color/image_raw": third,
        "/wrist/color/image_raw": wrist,
        "/joint_states": joints,
    }
    return write_bag(path, topics, **options)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("compress", [False, True], ids=["plain", "zstd"])
def test_the_default_topics_become_rows_at_a_fixed_rate(
    tmp_path: Path, kind: str, compress: bool
) -> None:
    our_bag(tmp_path / "bags/first", kind=kind, task="put the cup on the tray", compress=compress)
    dataset, summary = run("rosbag", tmp_path / "bags", tmp_path / "out")
    assert (summary.episodes, summary.broken, dataset.fps) == (1, {}, 10)
    assert dataset.state_names == dataset.action_names == JOINTS and dataset.extras[
        "recording"
    ] == ["first"]
    arrays = dataset.episode(0)
    times = np.arange(10) / 10  # the eleventh row has no next joint state
    np.testing.assert_allclose(arrays.state, [position(t) for t in times], atol=1e-6)
    np.testing.assert_allclose(arrays.action, [position(t + 0.1) for t in times], atol=1e-6)
    assert arrays.task == "put the cup on the tray"
    check_frames(dataset, 0, "third_person", np.stack([picture(0, 2 * i) for i in range(10)]))
    check_frames(dataset, 0, "wrist", np.stack([picture(1, 3 * i, 40, 40) for i in range(10)]))


def test_topics_rate_and_commands_can_be_named(tmp_path: Path) -> None:
    frames = [(t, jpeg_message(t, picture(0, i))) for i, t in enumerate(np.arange(0, 1.01, 0.05))]
    left = [(t, joint_message(t, [t, 1], ["a", "b"])) for t in np.arange(0, 1.01, 0.01)]
    turns = [
        (t, 1 - 2 * (i // 20 % 2)) for i, (t, _) in enumerate(left)
    ]  # every other row gets its joints the other way round
    right = [(t, joint_message(t, [t, 2][::turn], ["a", "b"][::turn])) for t, turn in turns]
    commands = [(t, array_message([10 * t])) for t in np.arange(0, 1.01, 0.01)]
    bag = write_bag(
        tmp_path / "bag",
        {"/cam/compressed": frames, "/left": left, "/right": right, "/command": commands},
    )
    dataset, _ = run(
        "rosbag",
        bag,
        tmp_path / "out",
        fps=5.0,
        views={"wrist": "/cam/compressed"},
        state=["/left", "/right"],
        action=["/command"],
        image_size=32,
        task="wave",
    )
    assert dataset.state_names == [
        "left_a",
        "left_b",
        "right_a",
        "right_b",
    ] and dataset.action_names == ["command_0"]
    times = np.arange(6) / 5
    np.testing.assert_allclose(dataset.episode(0).state, [[t, 1, t, 2] for t in times], atol=1e-6)
    np.testing.assert_allclose(dataset.episode(0).action[:, 0], 10 * times, atol=1e-5)
    assert (
        dataset.frames(0, "wrist", [0]).shape == (1, 32, 32, 3)
        and dataset.episode(0).task == "wave"
    )


def test_without_header_stamps_the_time_of_recording_counts(tmp_path: Path) -> None:
    frames = [
        (t, image_message(None, picture(0, i))) for i, t in enumerate(np.arange(0, 1.01, 0.1))
    ]
    joints = [(t, array_message([t])) for t in np.arange(0, 1.01, 0.01)]
    bag = write_bag(tmp_path / "bag", {"/wrist/color/image_raw": frames, "/arm": joints})
    dataset, _ = run("rosbag", bag, tmp_path / "out", state=["/arm"])
    np.testing.assert_allclose(dataset.episode(0).state[:, 0], np.arange(10) / 10, atol=1e-6)
    check_frames(dataset, 0, "wrist", np.stack([picture(0, i) for i in range(10)]))


def test_a_bag_with_cameras_alone_can_be_read_for_pretraining(tmp_path: Path) -> None:
    frames = [(t, image_message(t, picture(0, i))) for i, t in enumerate(np.arange(0, 1.01, 0.1))]
    bag = write_bag(tmp_path / "bag", {"/wrist/color/image_raw": frames})
    dataset, _ = run("rosbag", bag, tmp_path / "out", state=["none"], action=["none"])
    assert dataset.episode(0).state.shape == (11, 0) == dataset.episode(0).action.shape
    check_frames(dataset, 0, "wrist", np.stack([picture(0, i) for i in range(11)]))


def test_a_single_file_without_metadata_is_a_bag_too(tmp_path: Path) -> None:
    bag = our_bag(tmp_path / "bag")
    (bag / "metadata.yaml").unlink()
    dataset, _ = run("rosbag", bag, tmp_path / "out")
    assert dataset.num_frames == 10 and dataset.extras["recording"] == ["bag.mcap"]


@pytest.mark.parametrize("kind", KINDS)
def test_broken_bags_are_skipped_and_named(tmp_path: Path, kind: str) -> None:
    bags = tmp_path / "bags"
    our_bag(bags / "a", kind=kind)
    cut = next(path for path in our_bag(bags / "b", kind=kind).iterdir() if path.suffix != ".yaml")
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    our_bag(bags / "c", seconds=0.05, kind=kind)
    next(
        path for path in our_bag(bags / "d", kind=kind).iterdir() if path.suffix != ".yaml"
    ).unlink()
    frames = [(t, image_message(t, picture(0, 0))) for t in (0.0, 0.1, 1.5, 1.6)]
    joints = [(t, joint_message(t, position(t))) for t in np.arange(0, 1.6, 0.05)]
    write_bag(bags / "e", {"/third_person/color/image_raw": frames, "/joint_states": joints}, kind)
    write_bag(bags / "f", {"/third_person/color/image_raw": frames[:2]}, kind)
    depth = [
        (t, image_message(t, np.zeros((4, 4, 2), np.uint8), "16UC1")) for t in (0.0, 0.5, 1.0, 1.5)
    ]
    write_bag(bags / "g", {"/third_person/color/image_raw": depth, "/joint_states": joints}, kind)
    (bags / "h").mkdir()
    (bags / "h/metadata.yaml").write_text("rosbag2_bagfile_information: [")
    dataset, summary = run("rosbag", bags, tmp_path / "out", max_broken=0.9)
    assert dataset.extras["recording"] == ["a"] and sorted(summary.broken) == list("bcdefgh")
    wanted = {
        "b": "cannot be read",
        "c": "less than two rows",
        "d": "missing",
        "e": "/third_person/color/image_raw has no message within 0.5 s of 0.8 s",
        "f": "has no topic /joint_states; suitable topics: none",
        "g": "carries '16UC1' images",
        "h": "YAML",
    }
    for name, words in wanted.items():
        assert words in summary.broken[name] and "\n" not in summary.broken[name]


def test_joints_that_change_break_the_episode_and_other_columns_the_bag(tmp_path: Path) -> None:
    bags = tmp_path / "bags"
    our_bag(bags / "a")
    frames = [(t, image_message(t, picture(0, 0))) for t in np.arange(0, 1.01, 0.1)]
    wrist = [(t, image_message(t, picture(0, 0, 40, 40))) for t in np.arange(0, 1.01, 0.1)]
    views = {"/third_person/color/image_raw": frames, "/wrist/color/image_raw": wrist}
    changing = [
        (t, joint_message(t, position(t), JOINTS if t < 0.5 else ["x", "y", "z"]))
        for t in np.arange(0, 1.01, 0.1)
    ]
    write_bag(bags / "b", {**views, "/joint_states": changing})
    other = [(t, joint_message(t, position(t), ["x", "y", "z"])) for t in np.arange(0, 1.01, 0.1)]
    write_bag(bags / "c", {**views, "/joint_states": other})
    _, summary = run("rosbag", bags, tmp_path / "out", max_broken=0.9)
    assert (
        "changes its joints" in summary.broken["b"]
        and "its state has the columns x, y, z" in summary.broken["c"]
    )


def test_mistakes_are_reported_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no rosbag2 folder"):
        run("rosbag", tmp_path / "empty", tmp_path / "out")
    bag = our_bag(tmp_path / "bag")
    with pytest.raises(
        UserError,
        match="has no topic /cam; suitable topics: "
        "/third_person/color/image_raw, /wrist/color/image_raw",
    ):
        run("rosbag", bag, tmp_path / "out", views={"wrist": "/cam"})
    with pytest.raises(UserError, match="/joint_states is of type sensor_msgs/msg/JointState"):
        run("rosbag", bag, tmp_path / "out", views={"wrist": "/joint_states"})
