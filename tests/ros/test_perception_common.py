"""Conversions between messages and numpy, meters, and which images and joint state are combined to
an observation. No node is started.
"""

import time

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from sensor_msgs.msg import Image, JointState

from alam_common.messages import (
    image_to_numpy,
    joint_positions,
    ns_to_stamp,
    numpy_to_image,
    seconds_to_stamp,
    stamp_to_ns,
    stamp_to_seconds,
)
from alam_common.meters import RateMeter, Recent
from alam_core.errors import UserError
from alam_core.robots.piper import JOINT_NAMES
from alam_perception.sync import FrameSet, SkewWatch, Synchroniser

MS = 1_000_000


def as_message(pixels: np.ndarray, encoding: str, padding: int) -> Image:
    """Pixels (H, W, channels) as a message whose rows end with ``padding`` meaningless bytes."""
    height, width, channels = pixels.shape
    rows = np.full((height, width * channels + padding), 255, np.uint8)
    rows[:, : width * channels] = pixels.reshape(height, -1)
    message = Image(height=height, width=width, encoding=encoding, step=width * channels + padding)
    message.data.frombytes(rows.tobytes())
    return message


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "rgba8", "bgra8", "mono8"])
def test_every_encoding_gives_the_same_image(encoding: str, padding: int) -> None:
    rgb = np.random.default_rng(0).integers(0, 255, (4, 7, 3), dtype=np.uint8)
    alpha = np.full((4, 7, 1), 9, np.uint8)
    if encoding == "mono8":
        rgb = np.repeat(rgb[:, :, :1], 3, axis=2)
    pixels = {
        "rgb8": rgb,
        "bgr8": rgb[:, :, ::-1],
        "rgba8": np.concatenate([rgb, alpha], axis=2),
        "bgra8": np.concatenate([rgb[:, :, ::-1], alpha], axis=2),
        "mono8": rgb[:, :, :1],
    }[encoding]
    np.testing.assert_array_equal(image_to_numpy(as_message(pixels, encoding, padding)), rgb)


def test_image_round_trip() -> None:
    rgb = np.random.default_rng(1).integers(0, 255, (5, 6, 3), dtype=np.uint8)
    message = numpy_to_image(rgb, Time(sec=3, nanosec=7), "wrist_color_optical_frame")
    assert message.header.stamp == Time(sec=3, nanosec=7)
    np.testing.assert_array_equal(image_to_numpy(message), rgb)


def test_the_error_for_a_bad_image_names_its_topic() -> None:
    good = numpy_to_image(np.zeros((4, 4, 3), np.uint8), Time())
    depth = Image(height=4, width=4, encoding="16UC1", step=8, data=[0] * 32)
    cut = Image(
        height=good.height, width=good.width, encoding="rgb8", step=good.step, data=good.data[:-1]
    )
    narrow = Image(height=4, width=5, encoding="rgb8", step=12, data=[0] * 48)
    for bad in (depth, cut, narrow, Image(encoding="rgb8")):
        with pytest.raises(UserError, match="/wrist/image") as error:
            image_to_numpy(bad, "/wrist/image")
        assert "\n" not in str(error.value)


def test_stamps_are_exact() -> None:
    for ns in (0, 1, 999_999_999, 1_000_000_000, 1_100_000_000, 2_147_483_647_999_999_999):
        assert stamp_to_ns(ns_to_stamp(ns)) == ns
    assert seconds_to_stamp(1.1) == Time(sec=1, nanosec=100_000_000)
    assert stamp_to_seconds(Time(sec=2, nanosec=500_000_000)) == 2.5


def test_joint_positions_are_found_by_name() -> None:
    order = np.random.default_rng(2).permutation(7)
    message = JointState(
        name=[*(JOINT_NAMES[i] for i in order), "other"], position=[*(float(i) for i in order), 9.0]
    )
    np.testing.assert_array_equal(joint_positions(message), np.arange(7, dtype=np.float32))
    for bad in (
        JointState(name=list(JOINT_NAMES[:6]), position=[0.0] * 6),
        JointState(name=list(JOINT_NAMES), position=[0.0] * 6),
        JointState(name=[*JOINT_NAMES, "joint1"], position=[0.0] * 8),
        JointState(name=list(JOINT_NAMES), position=[float("nan")] * 7),
    ):
        with pytest.raises(ValueError):
            joint_positions(bad)


def test_meters() -> None:
    meter = RateMeter(window=10.0)
    assert meter.rate() == 0
    for _ in range(5):
        meter.tick()
    assert meter.count == 5
    assert meter.rate() > 0
    before = meter.silence()
    time.sleep(0.01)
    assert meter.silence() > before
    recent = Recent(size=3)
    assert recent.percentile(50) == 0
    for value in (100, 1, 2, 3):
        recent.add(value)
    assert recent.last() == 3
    assert recent.percentile(50) == 2


def synchroniser() -> Synchroniser:
    return Synchroniser(["a", "b"], ["j"], max_skew=50 * MS, max_age=500 * MS)


def joints(sync: Synchroniser, ms: int, **positions: float) -> None:
    """Add a joint state that arrives at once, with a stamp in ms."""
    sync.add_joints(ms * MS, ms * MS, list(positions), list(positions.values()))


def test_a_frame_set_has_the_newest_images_and_the_joint_state_nearest_to_them() -> None:
    sync = synchroniser()
    for stamp in range(900, 1200, 5):
        joints(sync, stamp, j=stamp)
    sync.add_image("a", 900 * MS, "old")
    sync.add_image("a", 1000 * MS, "a")
    sync.add_image("b", 1020 * MS, "b")
    frames = sync.take(1200 * MS)
    assert isinstance(frames, FrameSet)
    assert (frames.images, frames.stamp, frames.joints) == (
        {"a": "a", "b": "b"},
        1000 * MS,
        {"j": 1020},
    )
    assert (frames.skew, frames.skewed) == (20 * MS, False)
    assert sync.take(1210 * MS) is None  # nothing new


def test_a_skewed_set_is_flagged_and_a_stale_one_withheld() -> None:
    sync = synchroniser()
    assert sync.take(0) == "no image of a yet, no image of b yet, no joint state yet"
    joints(sync, 1000, j=0.1)
    sync.add_image("a", 940 * MS, "a")
    sync.add_image("b", 1000 * MS, "b")
    frames = sync.take(1000 * MS)
    assert isinstance(frames, FrameSet) and frames.skewed and frames.skew == 60 * MS
    sync.add_image("b", 1440 * MS, "b")
    reason = sync.take(1441 * MS)
    assert (
        isinstance(reason, str)
        and "image of a is 0.5 s old" in reason
        and "of b" not in reason
        and "joint" not in reason
    )


def test_a_part_from_the_future_is_stale() -> None:
    """After the clock was set back, the last image of a camera that has stopped must not become
    valid again when the clock reaches its stamp.
    """
    sync = synchroniser()
    joints(sync, 1000, j=0.1)
    sync.add_image("a", 9000 * MS, "a")
    sync.add_image("b", 1000 * MS, "b")
    reason = sync.take(1000 * MS)
    assert (
        isinstance(reason, str)
        and "image of a is 8.0 s in the future" in reason
        and "of b" not in reason
    )


def test_a_set_waits_for_a_frame_that_is_nearer_to_the_newest() -> None:
    sync = synchroniser()
    for stamp in (0, 40):
        sync.add_image("a", stamp * MS, "a")
        sync.add_image("b", stamp * MS, "b")
    sync.add_image("a", 61 * MS, "a")  # the frame of b at about 80 ms will be nearer
    assert not sync.complete()
    sync.add_image("a", 60 * MS, "a")
    assert sync.complete()


def test_a_frame_is_new_once() -> None:
    sync = synchroniser()
    assert sync.add_image("a", 100 * MS, "a")
    assert not sync.add_image("a", 100 * MS, "a")
    assert sync.add_image("a", 133 * MS, "a")
    assert sync.add_image("a", 50 * MS, "a")  # the clock was set back


def test_frames_of_one_stamp_are_taken_once() -> None:
    sync = synchroniser()
    joints(sync, 190, j=0.1)
    sync.add_image("a", 100 * MS, "a")
    assert not sync.one_stamp()
    sync.add_image("b", 200 * MS, "b")
    assert not sync.one_stamp()
    assert sync.behind() == ["a"]
    sync.add_image("a", 200 * MS, "a")
    assert sync.behind() == []
    assert sync.one_stamp() and not sync.caught_up()
    joints(sync, 200, j=0.2)
    assert sync.one_stamp() and sync.caught_up()
    frames = sync.take(200 * MS)
    assert isinstance(frames, FrameSet) and frames.joints == {"j": 0.2} and frames.skew == 0
    assert not sync.one_stamp()


def test_joint_states_of_a_clock_that_was_set_back_are_taken() -> None:
    sync = synchroniser()
    joints(sync, 9000, j=0.1)
    joints(sync, 100, j=0.2)
    sync.add_image("a", 100 * MS, "a")
    sync.add_image("b", 100 * MS, "b")
    frames = sync.take(100 * MS)
    assert isinstance(frames, FrameSet) and frames.joints == {"j": 0.2}


def test_a_set_is_complete_when_every_view_has_a_new_frame_within_the_skew() -> None:
    sync = synchroniser()
    joints(sync, 100, j=0.1)
    sync.add_image("a", 100 * MS, "a")
    assert not sync.complete()
    sync.add_image("b", 120 * MS, "b")
    assert sync.complete()
    assert isinstance(sync.take(130 * MS), FrameSet)
    assert not sync.complete()
    sync.add_image("a", 271 * MS, "a")
    assert not sync.complete()
    sync.add_image("b", 220 * MS, "b")  # new, but too old for the other one
    assert not sync.complete()
    sync.add_image("b", 321 * MS, "b")
    assert sync.complete()
    assert isinstance(sync.take(330 * MS), FrameSet)
    sync.add_image("a", 100 * MS, "a")  # the clock was set back
    sync.add_image("b", 90 * MS, "b")
    assert sync.complete()


def with_images(sync: Synchroniser, ms: int) -> Synchroniser:
    """Both views have an image with a stamp in ms."""
    for view in ("a", "b"):
        sync.add_image(view, ms * MS, view)
    return sync


def arm_and_gripper() -> Synchroniser:
    return Synchroniser(["a", "b"], ["arm", "gripper"], max_skew=50 * MS, max_age=500 * MS)


def test_joint_states_of_two_drivers_are_one_state() -> None:
    sync = with_images(arm_and_gripper(), 1000)
    joints(sync, 995, arm=1.0)
    assert sync.take(1000 * MS) == "no joint state has gripper"
    assert not sync.caught_up()
    joints(sync, 1003, gripper=0.05, other=7.0)
    assert not sync.caught_up()
    joints(sync, 1005, arm=1.1)
    assert sync.caught_up()
    frames = sync.take(1010 * MS, publishers=2)
    assert isinstance(frames, FrameSet)
    assert frames.joints == {"arm": 1.0, "gripper": 0.05, "other": 7.0}
    assert (frames.joint_stamp, frames.skew) == (995 * MS, 8 * MS)


def test_a_joint_that_is_lost_is_never_served() -> None:
    sync = arm_and_gripper()
    for ms in range(1000, 2000, 20):
        joints(sync, ms, arm=1.0)
        if ms < 1200:
            joints(sync, ms, gripper=0.05)
            joints(sync, ms, tool=0.0)
    assert sync.problem(2000 * MS) == (
        "no image of a yet, no image of b yet, newest position of gripper is 0.8 s old"
    )
    joints(sync, 1990, gripper=0.05)
    frames = with_images(sync, 1990).take(2000 * MS)
    assert isinstance(frames, FrameSet) and frames.joints == {"arm": 1.0, "gripper": 0.05}
    assert sync.lost(2000 * MS) == ["tool"]


def test_joints_with_other_names_are_listed() -> None:
    sync = with_images(arm_and_gripper(), 1000)
    joints(sync, 1000, joint_1=0.0, joint_2=0.0)
    assert sync.take(1000 * MS) == "no joint state has arm, gripper (others are joint_1, joint_2)"


def test_two_sources_of_a_joint_give_no_set_until_one_has_stopped() -> None:
    sync = with_images(arm_and_gripper(), 990)
    for ms in range(1000, 1300, 20):
        joints(sync, ms, arm=1.2, gripper=0.05)
        joints(sync, ms + 1, arm=0.0, gripper=0.0)
        reason = with_images(sync, ms + 2).take((ms + 3) * MS, publishers=2)
        assert isinstance(reason, str)  # from the first false message on
    assert reason.endswith("faster than a joint can: two nodes publish it, stop one")
    for ms in range(1300, 7000, 20):
        joints(sync, ms, arm=1.2, gripper=0.05)
    assert isinstance(with_images(sync, 6980).take(6990 * MS, publishers=1), FrameSet)


def test_a_reset_is_served_after_the_next_joint_state() -> None:
    sync = arm_and_gripper()
    for ms, arm in ((960, 1.2), (980, 1.2), (1000, -0.5)):
        joints(sync, ms, arm=arm, gripper=0.05)
    with_images(sync, 1000)
    assert sync.take(1000 * MS, publishers=2) == "arm has jumped and 2 nodes publish joint states"
    joints(sync, 1020, arm=-0.5, gripper=0.05)
    assert isinstance(sync.take(1020 * MS, publishers=2), FrameSet)
    joints(sync, 1040, arm=1.2, gripper=0.05)
    assert isinstance(with_images(sync, 1040).take(1040 * MS, publishers=1), FrameSet)


def test_skew_is_news_when_many_observations_have_it() -> None:
    watch = SkewWatch(50 * MS)
    for i in range(200):  # a late frame every second
        watch.add(i % 10 == 0)
        assert watch.report() == ""
    for _ in range(20):
        watch.add(True)
    assert watch.report() == "23 of 50 observations skewed by more than 0.050 s"
    reports = []
    for i in range(200):  # it ends once, not again and again
        watch.add(i % 30 == 0)
        reports.append(watch.report() != "")
    assert reports == sorted(reports, reverse=True) and not reports[-1]
