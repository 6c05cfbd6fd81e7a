"""camera_sync and latent_encoder as real processes over DDS, fed with synthetic images."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from alam_msgs.msg import LatentTransition, Observation, Processed
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image, JointState
from tiny_checkpoints import DIM, SIZE, TOKENS, save_tiny_transition

from alam_common.messages import image_to_numpy, ns_to_stamp, numpy_to_image, stamp_to_ns
from alam_core.data.images import resize_images
from alam_core.latent_action import encode_images
from alam_core.robots.piper import JOINT_NAMES
from alam_core.types import VIEWS

MS = 1_000_000
PATIENCE = 60.0  # s, for a machine that is busy with other work


class Robot:
    """Cameras and arm of a robot, on a simulated clock that only ``tick`` advances, or on the wall
    clock (``wall``).
    """

    def __init__(self, ros) -> None:
        self.ros = ros
        self.wall = False
        self.encoding = "rgb8"
        self.now = 1000 * MS
        self.images = {
            view: ros.node.create_publisher(Image, f"/{view}/color/image_raw", 2) for view in VIEWS
        }
        self.joints = ros.node.create_publisher(JointState, "/joint_states", 10)
        self.drivers = {JOINT_NAMES: self.joints}  # joints -> their publisher
        self.clock = ros.node.create_publisher(Clock, "/clock", 1)
        self.observations = ros.collect(Observation, "/alam/observation")
        self.diagnostics = ros.collect(DiagnosticArray, "/diagnostics")

    def wait_until_connected(self) -> None:
        publishers = [*self.images.values(), self.joints] + ([] if self.wall else [self.clock])
        self.ros.wait_for(
            lambda: all(p.get_subscription_count() for p in publishers),
            timeout=120,
            what="camera_sync's subscriptions",
        )
        self.ros.wait_for(lambda: self.diagnostics, what="camera_sync's diagnostics")

    def tick(self, views: tuple[str, ...] = VIEWS, delay: int = 0) -> dict[str, np.ndarray]:
        """Advance by 100 ms and publish images of the given views; the last one's stamp is
        ``delay`` ns older. Returns the images by view.
        """
        if self.wall:
            time.sleep(0.1)
            self.now = self.ros.node.get_clock().now().nanoseconds
        else:
            self.now += 100 * MS
            self.clock.publish(Clock(clock=ns_to_stamp(self.now)))
        for names, publisher in self.drivers.items():
            positions = [0.1 * JOINT_NAMES.index(name) for name in names]
            joints = JointState(name=list(names), position=positions)
            joints.header.stamp = ns_to_stamp(self.now)
            publisher.publish(joints)
        for _ in range(3):
            self.ros.executor.spin_once(
                timeout_sec=0.01
            )  # let the clock and the joint state arrive first
        pictures = {}
        for view in views:
            late = delay if view == views[-1] else 0
            pictures[view] = np.random.default_rng(self.now + len(view)).integers(
                0, 255, (48, 64, 3), dtype=np.uint8
            )
            message = numpy_to_image(pictures[view], ns_to_stamp(self.now - late), view)
            message.encoding = self.encoding
            self.images[view].publish(message)
        return pictures

    def tick_until_served(self) -> dict[str, np.ndarray]:
        """Tick until camera_sync publishes an observation of the same tick, with the joint state of
        that tick: best effort may lose or delay messages. Returns the images by view.
        """
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            pictures = self.tick()
            for _ in range(20):
                self.ros.executor.spin_once(timeout_sec=0.02)
                newest = self.observations[-1] if self.observations else Observation()
                if all(
                    stamp_to_ns(stamped.header.stamp) == self.now
                    for stamped in (newest, newest.joint_state)
                ):
                    return pictures
        pytest.fail("no observation was served")

    def tick_until(self, condition: Callable[[Observation], bool], delay: int) -> Observation:
        """Tick, with the wrist's stamp ``delay`` ns older, until an observation meets the
        condition.
        """
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            self.tick(delay=delay)
            self.ros.executor.spin_once(timeout_sec=0.02)
            if self.observations and condition(self.observations[-1]):
                return self.observations[-1]
        pytest.fail("no such observation was served")

    def says(self, text: str) -> bool:
        """Whether the message in camera_sync's last diagnostics contains ``text``."""
        return text in self.status().message

    def status(self) -> DiagnosticStatus:
        """camera_sync's last diagnostics."""
        newest = [
            status
            for array in self.diagnostics
            for status in array.status
            if status.name == "camera_sync"
        ]
        return newest[-1] if newest else DiagnosticStatus()


@pytest.fixture
def robot(ros) -> Robot:
    return Robot(ros)


def test_camera_sync_serves_complete_sets_in_simulated_time(
    start_node: Callable, ros, robot: Robot
) -> None:
    start_node("alam_perception", "camera_sync", {"use_sim_time": True, "image_size": SIZE})
    robot.wait_until_connected()
    assert robot.says("no image of third_person yet") or robot.says("no observation")
    for _ in range(5):
        pictures = robot.tick_until_served()
        served = robot.observations[-1]
        assert list(served.views) == list(VIEWS) and not served.skewed and served.skew == 0
        assert stamp_to_ns(served.header.stamp) == robot.now
        for view, image in zip(VIEWS, served.images, strict=True):
            np.testing.assert_array_equal(
                image_to_numpy(image), resize_images(pictures[view], SIZE)
            )
        np.testing.assert_allclose(served.joint_state.position, [0.1 * i for i in range(7)])
    stamps = [stamp_to_ns(observation.header.stamp) for observation in robot.observations]
    assert len(set(stamps)) == len(stamps)  # no set is served twice

    count = len(robot.observations)
    for _ in range(10):  # one camera stops: no observation, and the reason is reported
        robot.tick(views=("third_person",))
    ros.wait_for(
        lambda: (
            robot.says("image of wrist is")
            or robot.says("wrist: no image on /wrist/color/image_raw")
        ),
        what="the reason",
    )
    assert len(robot.observations) == count
    ros.wait_for(
        lambda: (
            robot.says("wrist: no image on /wrist/color/image_raw")
            and not robot.says("third_person")
        ),
        what="the silent camera",
    )

    robot.tick_until_served()
    ros.wait_for(lambda: robot.says("ROS time stands still"), what="the diagnosis")


def test_camera_sync_flags_skew_and_withholds_what_is_stale(
    start_node: Callable, ros, robot: Robot
) -> None:
    robot.wall = True
    start_node(
        "alam_perception",
        "camera_sync",
        {"image_size": SIZE, "max_skew": 0.03, "max_age": 0.35, "rate": 20.0},
    )
    robot.wait_until_connected()
    flagged = robot.tick_until(lambda o: abs(o.skew - 0.04) < 1e-6, delay=40 * MS)
    assert flagged.skewed and flagged.image_ages[1] - flagged.image_ages[0] == pytest.approx(0.04)
    assert stamp_to_ns(flagged.header.stamp) == stamp_to_ns(flagged.images[1].header.stamp)
    robot.tick_until(
        lambda _: robot.says("observations skewed by more than 0.030 s"), delay=40 * MS
    )
    good = robot.tick_until(lambda o: abs(o.skew - 0.02) < 1e-6, delay=20 * MS)
    assert not good.skewed

    for _ in range(10):
        robot.tick(views=("third_person",))
    ros.wait_for(lambda: robot.says("wrist"), what="the reason")
    for observation in robot.observations:
        assert max([*observation.image_ages, observation.joint_age]) <= 0.36


def test_a_wrong_encoding_ends_camera_sync_with_one_clear_line(
    start_node: Callable, ros, robot: Robot
) -> None:
    process = start_node("alam_perception", "camera_sync")
    ros.wait_for(robot.images["wrist"].get_subscription_count, timeout=120, what="camera_sync")
    depth = Image(height=4, width=4, encoding="16UC1", step=8, data=[0] * 32)

    def ended() -> bool:
        robot.images["wrist"].publish(depth)
        return process.poll() is not None

    ros.wait_for(ended, what="camera_sync's end")
    assert process.poll() == 2
    assert "error: /wrist/color/image_raw carries '16UC1' images" in process.last_line()
    assert not any("Traceback" in line for line in process.lines)


def test_a_wrong_topic_is_named_in_the_log(start_node: Callable, ros, robot: Robot) -> None:
    robot.wall = True
    ros.node.create_publisher(JointState, "/other_joints", 1)
    process = start_node(
        "alam_perception", "camera_sync", {"image_topics": ["/nowhere/image", "/other_joints"]}
    )
    ros.wait_for(robot.joints.get_subscription_count, timeout=120, what="camera_sync")
    for said in (
        "third_person: no image on /nowhere/image",
        "(it has no publisher)",
        "(it carries sensor_msgs/msg/JointState)",
    ):
        ros.wait_for(
            lambda said=said: any(said in line for line in process.lines),
            what=f"'{said}' in the log",
        )
    lines = len(process.lines)
    for _ in range(40):
        ros.executor.spin_once(timeout_sec=0.05)
    assert len(process.lines) <= lines + 2  # once, not with every diagnostics message


def test_wrong_parameters_end_with_one_clear_line(start_node: Callable) -> None:
    for parameters, line in (
        ({"image_topics": ["/one"]}, "2 views but 1 image_topics"),
        ({"rate": "fast"}, "'rate' must be float, 0.01 to 1000.0"),
        ({"rate": -1.0}, "'rate' must be float, 0.01 to 1000.0"),
        ({"trigger": "magic"}, "'trigger' must be one of auto, frames, timer, not 'magic'"),
    ):
        process = start_node("alam_perception", "camera_sync", parameters)
        assert process.wait(120) == 2
        assert process.last_line().startswith("error: ") and line in process.last_line()
        assert not any("Traceback" in line for line in process.lines)


def observation(stamp: int, seed: int) -> Observation:
    """An observation with two random images."""
    message = Observation(views=list(VIEWS))
    message.header.stamp = ns_to_stamp(stamp)
    pictures = np.random.default_rng(seed).integers(0, 255, (2, SIZE, SIZE, 3), dtype=np.uint8)
    message.images = [numpy_to_image(picture, message.header.stamp) for picture in pictures]
    return message


def test_latent_encoder_publishes_the_transitions_of_the_model(
    start_node: Callable, ros, tmp_path: Path
) -> None:
    model = save_tiny_transition(tmp_path / "transition")
    start_node(
        "alam_perception",
        "latent_encoder",
        {"checkpoint": str(tmp_path / "transition"), "max_gap": 0.25},
    )
    publisher = ros.node.create_publisher(Observation, "/alam/observation", 1)
    latents: list[LatentTransition] = ros.collect(LatentTransition, "/alam/latents")
    processed: list[Processed] = ros.collect(Processed, "/alam/processed")
    ros.wait_for(
        lambda: publisher.get_subscription_count() and ros.node.count_publishers("/alam/processed"),
        timeout=120,
        what="latent_encoder",
    )

    sent = [
        observation(moment * 100 * MS, moment) for moment in (10, 11, 12, 20, 21)
    ]  # the gap of 800 ms is not bridged
    for message in sent:
        ros.wait_for(
            lambda message=message: (
                processed and processed[-1].header.stamp == message.header.stamp
            ),
            what="processed",
            again=lambda message=message: publisher.publish(message),  # twice changes nothing
            every=5.0,
        )
    assert {message.node for message in processed} == {"latent_encoder"}
    ros.wait_for(lambda: len(latents) >= 6, what="latents")
    assert [(message.view, stamp_to_ns(message.to_stamp) // (100 * MS)) for message in latents] == [
        (view, moment) for moment in (11, 12, 21) for view in VIEWS
    ]
    for i, (earlier, later) in enumerate([(0, 1), (1, 2), (3, 4)]):
        pair = [
            np.stack([image_to_numpy(image) for image in sent[j].images]) for j in (earlier, later)
        ]
        expected = encode_images(model, *pair)
        for message, z in zip(latents[2 * i : 2 * i + 2], expected, strict=True):
            assert (message.tokens, message.dim) == (TOKENS, DIM)
            assert (
                message.from_stamp == sent[earlier].header.stamp
                and message.header.stamp == sent[later].header.stamp
            )
            np.testing.assert_allclose(message.data, z, rtol=1e-4, atol=1e-5)


def test_latent_encoder_without_a_checkpoint_ends_with_one_clear_line(start_node: Callable) -> None:
    process = start_node("alam_perception", "latent_encoder", {"checkpoint": "/nowhere/transition"})
    assert process.wait(120) == 2
    assert process.last_line().startswith("error: ") and "checkpoint" in process.last_line()
    assert not any("Traceback" in line for line in process.lines)
