"""Node ``camera_sync``: combines one image per view and the joint state to an observation, with
resized images.

In simulated time an observation is published when all views have a frame of the same stamp. On the
wall clock it is published as soon as every view has a new frame, at most at a given rate.
"""

import functools
import time

from alam_msgs.msg import Observation
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image, JointState

from alam_common.diagnostics import ERROR, OK, WARN, Diagnostics, Report
from alam_common.main import run_node
from alam_common.messages import (
    NANOSECONDS,
    ns_to_stamp,
    numpy_to_image,
    stamp_to_ns,
)
from alam_common.meters import RateMeter, Recent
from alam_common.parameters import Parameter, declare_parameters
from alam_core.data.images import resize_images
from alam_core.data.raw_images import BrokenImage, ChannelOrder, check_raw_image, decode_raw_image
from alam_core.errors import UserError
from alam_core.robots.piper import JOINT_NAMES
from alam_core.types import VIEWS
from alam_perception.pacing import Pacing
from alam_perception.sync import FrameSet, SkewWatch, Synchroniser

JOINT_PATIENCE = 0.02  # s (steady clock) that frames of one stamp wait for their joint state
SILENCE = 1.0  # s (steady clock) without an image after which a camera is reported as silent
LASTING = 1.0  # s (steady clock) of nothing but a wrong encoding after which the node ends
PARAMETERS = {
    "views": Parameter(list(VIEWS), "names of the views, in the order of the observation"),
    "image_topics": Parameter(
        [f"{view}/color/image_raw" for view in VIEWS], "one topic per view, in the same order"
    ),
    "joint_topic": Parameter(
        "joint_states",
        "topic of the arm's joint states; a message may hold some of the joints only",
    ),
    "joints": Parameter(list(JOINT_NAMES), "names of the joints that every observation must have"),
    "channels": Parameter(
        "",
        "rgb or bgr, the order of the channels of 8UC3 and 8UC4 images, whose encoding does not "
        "state it; empty: such images are refused",
        choices=("", "rgb", "bgr"),
    ),
    "image_size": Parameter(96, "px, side of the square images in the observation", 1, 4096),
    "trigger": Parameter(
        "auto",
        "frames: publish when all views have a frame of the same stamp. timer: publish as soon as "
        "every view has a new frame, at most at 'rate'; a late view is not waited for longer than "
        "its deadline. auto: frames with use_sim_time, else timer",
        choices=("auto", "frames", "timer"),
    ),
    "rate": Parameter(
        10.0, "Hz, maximum rate of observations with the trigger 'timer'", 0.01, 1000.0
    ),
    "max_skew": Parameter(
        0.05,
        "s, difference between stamps above which an observation is flagged as skewed",
        0.0,
        1e6,
    ),
    "max_age": Parameter(
        0.5, "s, age of an image or joint state above which no observation is published", 0.0, 1e6
    ),
}


class CameraSync(Node):
    """See the package's README for topics and parameters."""

    def __init__(self) -> None:
        super().__init__("camera_sync")
        p = declare_parameters(self, PARAMETERS)
        self.views: list[str] = p["views"]
        self.image_size: int = p["image_size"]
        if len(p["image_topics"]) != len(self.views):
            raise UserError(
                f"camera_sync: {len(self.views)} views but {len(p['image_topics'])} image_topics; "
                "give one topic per view, in the same order"
            )
        simulated_time = self.get_parameter("use_sim_time").value
        trigger = p["trigger"]
        if trigger == "auto":
            trigger = "frames" if simulated_time else "timer"

        topics = map(self.resolve_topic_name, p["image_topics"])
        self._topics = dict(zip(self.views, topics, strict=True))
        self._joint_topic = self.resolve_topic_name(p["joint_topic"])
        self._channels: ChannelOrder = p["channels"]
        self._sync = Synchroniser(
            self.views,
            p["joints"],
            round(p["max_skew"] * NANOSECONDS),
            round(p["max_age"] * NANOSECONDS),
        )
        self._pacing = Pacing(1.0 / p["rate"]) if trigger == "timer" else None
        self._meters = {view: RateMeter() for view in self.views}
        self._joint_meter, self._served = RateMeter(), RateMeter()
        self._work = Recent()
        # The newest ROS time (ns), and when it was first seen (s, steady clock).
        self._now = (0, time.monotonic())
        self._skewed = 0
        self._skews = SkewWatch(self._sync.max_skew)
        self._withheld = 0
        # What is wrong with the newest message of a topic, and how many were dropped.
        self._broken: dict[str, str] = {}
        self._dropped: dict[str, int] = {}
        self._wrong_since: dict[str, float] = {}  # topic -> first of its wrong encodings in a row
        self._last: FrameSet | None = None

        self._publisher = self.create_publisher(Observation, "alam/observation", 1)
        # Subscribed before the cameras: if messages of both wait, the executor takes those of the
        # older subscription first.
        self._joint_states = self.create_subscription(
            JointState,
            self._joint_topic,
            self._on_joints,
            QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT),
        )
        best_effort = QoSProfile(depth=2, reliability=ReliabilityPolicy.BEST_EFFORT)
        for view, topic in self._topics.items():
            self.create_subscription(
                Image, topic, functools.partial(self._on_image, view), best_effort
            )
        # The steady clock, because a timer on the system clock stops for as long as that clock was
        # set back.
        paced_by_ros = simulated_time and self._pacing is not None
        self._pace_clock = (
            self.get_clock() if paced_by_ros else Clock(clock_type=ClockType.STEADY_TIME)
        )
        self._patience = self.create_timer(JOINT_PATIENCE, self._serve, clock=self._pace_clock)
        self._patience.cancel()
        self._diagnostics = Diagnostics(self, self._check)

    def _on_image(self, view: str, message: Image) -> None:
        topic = self._topics[view]
        try:
            check_raw_image(message, topic, self._channels)
        except UserError as error:
            self._drop(topic, str(error))
            if not isinstance(error, BrokenImage):
                self._end_if_lasting(topic, error)
            return
        self._broken.pop(topic, None)
        self._wrong_since.pop(topic, None)
        self._meters[view].tick()
        if not self._sync.add_image(view, stamp_to_ns(message.header.stamp), message):
            return  # a repeated frame
        if self._pacing is None:
            self._serve_if_one_stamp()
        else:
            self._serve_if_due(self._pacing, self._seconds())

    def _drop(self, topic: str, reason: str) -> None:
        """Count a message that cannot be used."""
        self._broken[topic] = reason
        self._dropped[topic] = self._dropped.get(topic, 0) + 1

    def _end_if_lasting(self, topic: str, error: UserError) -> None:
        """Raise ``error``, a wrong encoding, if the topic has carried nothing else for a while."""
        since = self._wrong_since.setdefault(topic, time.monotonic())
        if time.monotonic() - since > LASTING:
            self._diagnostics.send(ERROR, str(error), {})
            raise error

    def _on_joints(self, message: JointState) -> None:
        now = self.get_clock().now().nanoseconds
        try:
            self._sync.add_joints(
                stamp_to_ns(message.header.stamp) or now, now, message.name, message.position
            )
        except ValueError as error:
            self._drop(self._joint_topic, str(error))
            return
        self._broken.pop(self._joint_topic, None)
        self._joint_meter.tick()
        if self._pacing is None:
            self._serve_if_one_stamp()

    def _serve_if_one_stamp(self) -> None:
        """Publish frames of one stamp. If their joint state has not arrived yet, wait up to
        ``JOINT_PATIENCE`` for it.
        """
        if not self._sync.one_stamp():
            return
        if self._sync.caught_up():
            self._serve()
        elif self._patience.is_canceled():
            self._patience.reset()

    def _serve_if_due(self, pacing: Pacing, now: float) -> None:
        """Publish a complete set when it is due; wait for a late camera until the deadline."""
        pacing.frame(now, self._sync.complete())
        if pacing.may_serve(now):
            self._serve()
        elif (deadline := pacing.deadline()) is not None:
            self._patience.timer_period_ns = max(round((deadline - now) * NANOSECONDS), 1)
            self._patience.reset()

    def _seconds(self) -> float:
        return self._pace_clock.now().nanoseconds * 1e-9

    def _serve(self) -> None:
        """Publish the newest set, unless a part of it is stale."""
        self._patience.cancel()
        if self._pacing is not None:
            self._pacing.served(self._seconds())
        now = self.get_clock().now().nanoseconds
        frames = self._sync.take(now, self._joint_states.get_publisher_count())
        if frames is None:
            return
        if isinstance(frames, str):
            self._withheld += 1
            return
        self._last = frames
        self._skewed += frames.skewed
        self._skews.add(frames.skewed)
        stamp = ns_to_stamp(frames.stamp)
        message = Observation(
            views=self.views,
            joint_state=JointState(name=list(frames.joints), position=list(frames.joints.values())),
            skew=frames.skew * 1e-9,
            skewed=frames.skewed,
        )
        message.header.stamp = stamp
        message.joint_state.header.stamp = ns_to_stamp(frames.joint_stamp)
        message.header.frame_id = message.joint_state.header.frame_id = "base_link"
        for view, image in frames.images.items():
            pixels = decode_raw_image(image, self._topics[view], self._channels)
            pixels = resize_images(pixels, self.image_size)
            message.images.append(numpy_to_image(pixels, image.header.stamp, image.header.frame_id))
            message.image_ages.append((now - frames.image_stamps[view]) * 1e-9)
        message.joint_age = (now - frames.joint_stamp) * 1e-9
        self._publisher.publish(message)
        self._served.tick()
        self._work.add((self.get_clock().now().nanoseconds - frames.stamp) * 1e-6)

    def _why(self, view: str) -> str:
        """Why the topic of a view is silent, as far as is known; "" if it is not."""
        topic = self._topics[view]
        if topic in self._broken:
            return f" ({self._broken[topic]})"
        types = {info.topic_type for info in self.get_publishers_info_by_topic(topic)}
        if not types:
            return " (it has no publisher)"
        other = types - {"sensor_msgs/msg/Image"}
        return f" (it carries {', '.join(sorted(other))})" if other else ""

    def _check(self) -> Report:
        values: dict[str, object] = {
            f"{view}_rate_hz": self._meters[view].rate() for view in self.views
        }
        values |= {
            "joint_state_rate_hz": self._joint_meter.rate(),
            "observation_rate_hz": self._served.rate(),
        }
        values |= {
            "observations": self._served.count,
            "skewed": self._skewed,
            "withheld": self._withheld,
        }
        values |= {f"dropped {topic}": count for topic, count in self._dropped.items()}
        values |= {"image_to_observation_ms_p50": self._work.percentile(50)}
        if self._last is not None:
            values["skew_s"] = self._last.skew * 1e-9
        now = self.get_clock().now().nanoseconds
        if now != self._now[0]:
            self._now = (now, time.monotonic())
        still = time.monotonic() - self._now[1]
        # While ROS time stands still, all cameras are silent. Then a camera is reported only if its
        # last image is older than that of another camera.
        watched = self.views if still <= SILENCE else self._sync.behind()
        silences = {view: self._meters[view].silence() for view in watched}
        silent = [
            f"{view}: no image on {self._topics[view]} for {s:.1f} s{self._why(view)}"
            for view, s in silences.items()
            if s > SILENCE
        ]
        if self._joint_meter.silence() > SILENCE and still <= SILENCE:
            broken = self._broken.get(self._joint_topic, "")
            reason = f" ({broken})" if broken else ""
            silent.append(f"no joint state for {self._joint_meter.silence():.1f} s{reason}")
        if silent:
            return ERROR, "no observation: " + ", ".join(silent), values
        if still > SILENCE:
            return WARN, f"no observation: ROS time stands still for {still:.1f} s", values
        if problem := self._sync.problem(now):
            return ERROR, f"no observation: {problem}", values
        if lost := self._sync.lost(now):
            return WARN, f"observations without {', '.join(lost)}: no new position", values
        if skew := self._skews.report():
            return WARN, skew, values
        return OK, f"serving {self._served.rate():.1f} Hz", values


def main() -> None:
    run_node(CameraSync)


if __name__ == "__main__":
    main()
