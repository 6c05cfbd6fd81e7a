"""Bags as people record them: partial joint states, several publishers, clocks that were set, and
encodings that do not state all.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from convert_fixtures import check_frames, picture, run
from test_convert_rosbag import (
    BEGIN,
    JOINTS,
    T,
    header,
    image_message,
    joint_message,
    position,
    write_bag,
)

from alam_core.errors import UserError

Rows = list[tuple[float, Any]]
ARM, GRIPPER = JOINTS[:2], JOINTS[2:]
VIEW = "/third_person/color/image_raw"
TIMES = np.arange(10) / 10


def same(t: float) -> float:
    return t


def frames(
    stamp: Callable[[float], float] = same, encoding: str = "rgb8", seconds: float = 1.0
) -> Rows:
    times = np.arange(0, seconds + 0.01, 0.1)
    return [(t, image_message(stamp(t), picture(0, i), encoding)) for i, t in enumerate(times)]


def states(
    values: Callable[[float], list[float]] = position,
    names: list[str] = JOINTS,
    phase: float = 0.0,
    stamp: Callable[[float], float] = same,
    seconds: float = 1.0,
) -> Rows:
    times = np.arange(phase, seconds + 0.005, 0.02)
    return [(t, joint_message(stamp(t), values(t), names)) for t in times]


def arm(t: float) -> list[float]:
    return position(t)[:2]


def gripper(t: float) -> list[float]:
    return position(t)[2:]


def refusal(folder: Path, topics: dict[str, Rows], **options: Any) -> str:
    """Why a bag with the topics is refused, one line."""
    write_bag(folder / "bag", topics)
    with pytest.raises(UserError, match="bag: ") as error:
        run("rosbag", folder / "bag", folder / "out", **options)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("first", ["arm", "gripper"])
@pytest.mark.parametrize("topic", ["/joint_states", "/gripper/joint_states"])
def test_arm_and_gripper_in_messages_of_their_own_are_one_state(
    tmp_path: Path, first: str, topic: str
) -> None:
    """On one topic or two, whichever comes first."""
    late = 0.0 if first == "gripper" else 0.01
    parts = {"/joint_states": states(arm, ARM, 0.01 - late)}
    parts[topic] = parts.get(topic, []) + states(gripper, GRIPPER, late)
    write_bag(tmp_path / "bag", {VIEW: frames(), **parts})
    dataset, _ = run("rosbag", tmp_path / "bag", tmp_path / "out", state=sorted(parts)[::-1])
    if topic == "/joint_states":
        assert dataset.state_names == JOINTS
    order = [dataset.state_names.index(joint) for joint in JOINTS]
    wanted = [position(t + 0.01) for t in TIMES[:9]]  # rows begin when all joints have a position
    np.testing.assert_allclose(dataset.episode(0).state[:, order], wanted, atol=0.025)


def test_messages_with_velocities_alone_are_passed_over(tmp_path: Path) -> None:
    wheels = [
        (t + 0.01, T["sensor_msgs/msg/JointState"](header(t), ["wheel"], *np.ones((3, 1))))
        for t in TIMES
    ]
    for _, message in wheels:
        message.position = np.zeros(0)
    write_bag(tmp_path / "bag", {VIEW: frames(), "/joint_states": states() + wheels})
    dataset, _ = run("rosbag", tmp_path / "bag", tmp_path / "out")
    assert dataset.state_names == JOINTS
    np.testing.assert_allclose(dataset.episode(0).state, [position(t) for t in TIMES], atol=1e-6)


@pytest.mark.parametrize(
    ("other", "joint"),
    [
        (states(lambda t: [0.0, 0.0, 0.0], phase=0.001), "joint1"),
        (states(lambda t: [0.0, 0.0, 0.0], phase=0.009, stamp=lambda t: -BEGIN / 1e9), "joint1"),
        (states(lambda t: [1.2, 0.5, 0.05], phase=0.01), "joint2"),
        (states(lambda t: [0.0], GRIPPER, phase=0.01), "gripper"),
    ],
    ids=["zeros just after", "zeros without stamps", "another arm", "another gripper"],
)
def test_two_publishers_of_a_joint_are_refused(tmp_path: Path, other: Rows, joint: str) -> None:
    driver = states(lambda t: [1.2, -0.8, 0.05])
    reason = refusal(tmp_path, {VIEW: frames(), "/joint_states": driver + other})
    assert "two nodes publish it; record each on a topic of its own" in reason
    assert f"{joint} on /joint_states goes from" in reason or joint == "joint1"


def test_a_publisher_that_says_the_same_again_is_no_contradiction(tmp_path: Path) -> None:
    relay = [(t + 0.003, message) for t, message in states()]
    write_bag(tmp_path / "bag", {VIEW: frames(), "/joint_states": states() + relay})
    dataset, _ = run("rosbag", tmp_path / "bag", tmp_path / "out")
    np.testing.assert_allclose(dataset.episode(0).state, [position(t) for t in TIMES], atol=1e-6)


@pytest.mark.parametrize(
    ("joints", "reason"),
    [
        (
            states(arm, ARM) + states(gripper, GRIPPER, seconds=0.3),
            "changes its joints: gripper ends 0.3 s after the topic's first message",
        ),
        (
            states(lambda t: [t, t, t if t < 0.305 else float("nan")]),
            "changes its joints: gripper ends 0.3 s after the topic's first message",
        ),
        (
            states(lambda t: [t, t, float("nan")]),
            "gripper on /joint_states never has a finite position",
        ),
        (states(lambda t: [t, t]), "/joint_states, 0.0 s after its first message: joint state has"),
    ],
    ids=["ends", "not finite any more", "never finite", "too few positions"],
)
def test_a_joint_that_is_missing_is_named(tmp_path: Path, joints: Rows, reason: str) -> None:
    assert reason in refusal(tmp_path, {VIEW: frames(), "/joint_states": joints})


def test_a_position_that_is_not_finite_is_passed_over(tmp_path: Path) -> None:
    joints = states(lambda t: [t, t, t if abs(t - 0.5) > 0.01 else float("nan")])
    write_bag(tmp_path / "bag", {VIEW: frames(), "/joint_states": joints})
    dataset, _ = run("rosbag", tmp_path / "bag", tmp_path / "out")
    np.testing.assert_allclose(dataset.episode(0).state[:, 2], TIMES, atol=0.021)


def from_1970(t: float) -> float:
    return t if t >= 0.5 else t + 3 - BEGIN / 1e9


def set_back(t: float) -> float:
    return t if t < 0.5 else t - 100


def set_forward(t: float) -> float:
    return t if t < 0.5 else t + 100


@pytest.mark.parametrize(
    ("camera", "joints", "jump"),
    [
        (from_1970, from_1970, f"jump by +{BEGIN / 1e9 - 2.9:,.1f} s, 0.4 s after"),
        (from_1970, same, f"{VIEW} jump by +{BEGIN / 1e9 - 2.9:,.1f} s, 0.4 s after"),
        (same, set_back, "/joint_states jump by -100.0 s, 0.5 s after"),
        (set_forward, set_forward, "jump by +100.1 s, 0.4 s after"),
        (lambda t: t - 5000, same, "do its stamps come from another clock?"),
    ],
    ids=["from 1970", "the camera's", "set back", "set forward", "two clocks"],
)
def test_clocks_that_disagree_are_named_and_the_time_of_recording_is_the_way_out(
    tmp_path: Path,
    camera: Callable[[float], float],
    joints: Callable[[float], float],
    jump: str,
) -> None:
    topics = {VIEW: frames(camera), "/joint_states": states(stamp=joints)}
    reason = refusal(tmp_path, topics)
    assert jump in reason and "--stamps recording takes the time of recording" in reason
    dataset, _ = run("rosbag", tmp_path / "bag", tmp_path / "out", stamps="recording")
    np.testing.assert_allclose(dataset.episode(0).state, [position(t) for t in TIMES], atol=1e-6)
    check_frames(dataset, 0, "third_person", np.stack([picture(0, i) for i in range(10)]))


@pytest.mark.parametrize(
    ("camera", "joints", "seconds"),
    [
        (lambda t: t - 1.5, same, "1.5"),
        (same, lambda t: t - 2, "2.0"),
        (lambda t: t + 1, lambda t: t - 0.5, "1.5"),
    ],
    ids=["the camera is behind", "the arm is behind", "on both sides of the recorder"],
)
def test_clocks_of_two_machines_that_differ_by_less_than_the_recording_are_named(
    tmp_path: Path,
    camera: Callable[[float], float],
    joints: Callable[[float], float],
    seconds: str,
) -> None:
    """The topics overlap, but their rows would be those of different moments."""
    topics = {
        VIEW: frames(camera, seconds=4.0),
        "/joint_states": states(stamp=joints, seconds=4.0),
    }
    reason = refusal(tmp_path, topics)
    assert f"are {seconds} s behind those of" in reason and "two machines differ" in reason
    dataset, _ = run("rosbag", tmp_path / "bag", tmp_path / "out", stamps="recording")
    np.testing.assert_allclose(dataset.episode(0).state[:10], [position(t) for t in TIMES], 1e-6)


@pytest.mark.parametrize("shift", [7200.0, 1.0 - BEGIN / 1e9], ids=["ahead", "simulated time"])
def test_stamps_of_one_clock_may_differ_from_that_of_the_recorder(
    tmp_path: Path, shift: float
) -> None:
    def late(t: float) -> float:  # a camera that takes 0.3 s
        return t + shift - 0.3

    def stamp(t: float) -> float:
        return t + shift

    write_bag(tmp_path / "bag", {VIEW: frames(late), "/joint_states": states(stamp=stamp)})
    dataset, _ = run("rosbag", tmp_path / "bag", tmp_path / "out")
    np.testing.assert_allclose(dataset.episode(0).state, [position(t) for t in TIMES[:7]], 1e-5)
    check_frames(dataset, 0, "third_person", np.stack([picture(0, i) for i in range(3, 10)]))


def test_a_clock_of_the_recorder_that_was_set_is_named(tmp_path: Path) -> None:
    def late(rows: Rows) -> Rows:
        return [(t if t < 0.5 else t + 5e5, message) for t, message in rows]

    def stamp(t: float) -> float:
        return t if t < 0.5 else t + 5e5

    topics = {VIEW: late(frames(stamp)), "/joint_states": late(states(stamp=stamp))}
    for stamps in ("header", "recording"):
        reason = refusal(tmp_path / stamps, topics, stamps=stamps)
        assert "that of the recording, too; split the bag there" in reason


def test_a_gap_between_messages_is_no_jump_of_the_clock(tmp_path: Path) -> None:
    gap = [row for row in frames(seconds=3.0) if not 0.5 < row[0] < 2.5]
    reason = refusal(tmp_path, {VIEW: gap, "/joint_states": states(seconds=3.0)})
    assert f"{VIEW} has no message within 0.5 s of 1." in reason


def test_an_encoding_without_an_order_of_channels_is_read_when_the_order_is_given(
    tmp_path: Path,
) -> None:
    topics = {VIEW: frames(encoding="8UC3"), "/joint_states": states()}
    reason = refusal(tmp_path, topics)
    assert f"{VIEW} carries '8UC3' images" in reason and "'channels': rgb or bgr" in reason
    for channels, order in (("rgb", [0, 1, 2]), ("bgr", [2, 1, 0])):
        dataset, _ = run("rosbag", tmp_path / "bag", tmp_path / channels, channels=channels)
        wanted = np.stack([picture(0, i)[:, :, order] for i in range(10)])
        check_frames(dataset, 0, "third_person", wanted)


@pytest.mark.parametrize(
    ("kind", "data", "words"),
    [
        ("16UC1; compressedDepth png", b"\0" * 12 + b"\x89PNG", "perhaps video or depth"),
        ("h264", b"\0\0\0\1\x67\x42", "perhaps video or depth"),
        ("jpeg", b"\xff\xd8\xff\xe0 cut off", "cannot be decoded"),
    ],
)
def test_compressed_images_that_are_not_read_are_named_with_their_format(
    tmp_path: Path, kind: str, data: bytes, words: str
) -> None:
    compressed = T["sensor_msgs/msg/CompressedImage"]
    rows = [(t, compressed(header(t), kind, np.frombuffer(data, np.uint8))) for t in TIMES]
    reason = refusal(tmp_path, {VIEW: rows, "/joint_states": states()})
    assert f"{VIEW} ('{kind}')" in reason and words in reason


def test_joints_without_names_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    rows = states(names=["joint1", "", "gripper"])
    write_bag(tmp_path / "bag", {VIEW: frames(), "/joint_states": rows})
    with pytest.raises(UserError, match="observation.state has a column without a name"):
        run("rosbag", tmp_path / "bag", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.mcap", b"version https://git-lfs.github.com/spec/v1\n", "'git lfs pull'"),
        ("a.mcap", b"\x89MCAP0\r\n cut off", "'ros2 bag reindex' may help"),
        ("a.db3", b"SQLite format 3\0 cut off", "'ros2 bag reindex' may help"),
        ("a.bag", b"#ROSBAG V2.0\n", "rosbags-convert --src"),
    ],
)
def test_what_is_no_bag_has_a_way_out(
    tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    (tmp_path / "bags").mkdir()
    (tmp_path / "bags" / name).write_bytes(content)
    with pytest.raises(UserError, match=words) as error:
        run("rosbag", tmp_path / "bags", tmp_path / "out")
    assert "\n" not in str(error.value)
