"""Node ``camera_sync``: images of all views and the joint state in, one synchronised and resized
observation out.

On a simulator's clock an observation is served when the frames of one stamp are complete; on the
wall clock at a fixed rate.
"""

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
    check_encoding,
    image_to_numpy,
    ns_to_stamp,
    numpy_to_image,
    stamp_to_ns,
)
from alam_common.meters import RateMeter, Recent
from alam_core.data.images import resize_images
from alam_core.errors import UserError
from alam_core.types import VIEWS
from alam_perception.sync import Look, Synchroniser

JOINT_PATIENCE = (
    0.02  # s of the steady clock that complete frames wait for the joint state of their moment
)
SILENCE = 1.0  # s of the steady clock without an image after which a camera is called dead


class CameraSync(Node):
    """See the package's README for topics and parameters."""

    def __init__(self) -> None:
        super().__init__("camera_sync")
        self.views: list[str] = list(self.declare_parameter("views", list(VIEWS)).value)
        topics = list(
            self.declare_parameter(
                "image_topics", [f"/{view}/color/image_raw" for view in self.views]
            ).value
        )
        joint_topic = self.declare_parameter("joint_topic", "/joint_states").value
        rate = self.declare_parameter("rate", 10.0).value
        self.image_size = self.declare_parameter("image_size", 96).value
        max_skew = self.declare_parameter("max_skew", 0.05).value
        max_age = self.declare_parameter("max_age", 0.5).value
        trigger = self.declare_parameter("trigger", "auto").value
        if len(topics) != len(self.views):
            raise UserError(
                f"camera_sync: {len(self.views)} views but {len(topics)} image_topics; give one topic a view, in the same order"
            )
        if trigger not in ("auto", "frames", "timer"):
            raise UserError(
                f"camera_sync: trigger is '{trigger}'; it must be auto, frames or timer"
            )
        if rate <= 0 or self.image_size <= 0:
            raise UserError("camera_sync: rate and image_size must be over 0")
        if trigger == "auto":
            trigger = "frames" if self.get_parameter("use_sim_time").value else "timer"

        self._topics = dict(zip(self.views, topics, strict=True))
        self._sync = Synchroniser(
            self.views, round(max_skew * NANOSECONDS), round(max_age * NANOSECONDS)
        )
        self._by_frames = trigger == "frames"
        self._meters = {view: RateMeter() for view in self.views}
        self._joint_meter, self._served = RateMeter(), RateMeter()
        self._work = Recent()
        self._now = (
            0,
            time.monotonic(),
        )  # newest ROS time (ns) and when it was seen first (s, steady)
        self._skewed = 0
        self._skewed_told = 0  # of these, those before the last diagnosis
        self._withheld = 0
        self._last: Look | None = None

        self._publisher = self.create_publisher(Observation, "/alam/observation", 1)
        # Before the cameras: of messages that wait together, the executor takes those of the older
        # subscription first.
        self.create_subscription(
            JointState,
            joint_topic,
            self._on_joints,
            QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT),
        )
        best_effort = QoSProfile(depth=2, reliability=ReliabilityPolicy.BEST_EFFORT)
        for view, topic in self._topics.items():
            self.create_subscription(
                Image, topic, lambda message, view=view: self._on_image(view, message), best_effort
            )
        self._patience = self.create_timer(
            JOINT_PATIENCE, self._serve, clock=Clock(clock_type=ClockType.STEADY_TIME)
        )
        self._patience.cancel()
        if not self._by_frames:
            # On the wall clock by the steady one: a timer on the system's clock stops for as long
            # as that was set back.
            steady = (
                None
                if self.get_parameter("use_sim_time").value
                else Clock(clock_type=ClockType.STEADY_TIME)
            )
            self.create_timer(1.0 / rate, self._serve, clock=steady)
        self._diagnostics = Diagnostics(self, self._check)

    def _on_image(self, view: str, message: Image) -> None:
        try:
            check_encoding(message, self._topics[view])
        except UserError as error:
            self._diagnostics.send(ERROR, str(error), {})
            raise
        self._meters[view].tick()
        self._sync.add_image(view, stamp_to_ns(message.header.stamp), message)
        self._serve_if_complete()

    def _on_joints(self, message: JointState) -> None:
        self._joint_meter.tick()
        self._sync.add_joints(stamp_to_ns(message.header.stamp), message)
        self._serve_if_complete()

    def _serve_if_complete(self) -> None:
        """Serve a complete set of frames; if their joint state is still on its way, wait a little
        for it.
        """
        if not self._by_frames or not self._sync.complete():
            return
        if self._sync.caught_up():
            self._serve()
        elif self._patience.is_canceled():
            self._patience.reset()

    def _serve(self) -> None:
        self._patience.cancel()
        now = self.get_clock().now().nanoseconds
        look = self._sync.look(now)
        if look is None:
            return
        if isinstance(look, str):
            self._withheld += 1
            return
        self._last = look
        self._skewed += look.skewed
        stamp = ns_to_stamp(look.stamp)
        message = Observation(
            views=self.views, joint_state=look.joints, skew=look.skew * 1e-9, skewed=look.skewed
        )
        message.header.stamp = stamp
        message.header.frame_id = "base_link"
        for view, image in look.images.items():
            pixels = resize_images(image_to_numpy(image, self._topics[view]), self.image_size)
            message.images.append(numpy_to_image(pixels, image.header.stamp, image.header.frame_id))
            message.image_ages.append((now - look.image_stamps[view]) * 1e-9)
        message.joint_age = (now - look.joint_stamp) * 1e-9
        self._publisher.publish(message)
        self._served.tick()
        self._work.add((self.get_clock().now().nanoseconds - look.stamp) * 1e-6)

    def _why(self, view: str) -> str:
        """What the topic itself says about its silence."""
        types = {info.topic_type for info in self.get_publishers_info_by_topic(self._topics[view])}
        if not types:
            return " (nobody publishes it)"
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
        values |= {"image_to_observation_ms_p50": self._work.percentile(50)}
        if self._last is not None:
            values["skew_s"] = self._last.skew * 1e-9
        now = self.get_clock().now().nanoseconds
        if now != self._now[0]:
            self._now = (now, time.monotonic())
        still = time.monotonic() - self._now[1]
        # While ROS time stands still all cameras are silent: then only those are to blame whose
        # image is missing beside the others.
        watched = self.views if still <= SILENCE else self._sync.behind()
        silences = {view: self._meters[view].silence() for view in watched}
        dead = [
            f"{view}: no image on {self._topics[view]} for {s:.1f} s{self._why(view)}"
            for view, s in silences.items()
            if s > SILENCE
        ]
        if self._joint_meter.silence() > SILENCE and still <= SILENCE:
            dead.append(f"no joint state for {self._joint_meter.silence():.1f} s")
        if dead:
            return ERROR, "no observation: " + ", ".join(dead), values
        if still > SILENCE:
            return WARN, f"no observation: ROS time stands still for {still:.1f} s", values
        stale = self._sync.stale(now)
        if stale:
            return ERROR, f"no observation: {stale}", values
        if self._skewed > self._skewed_told:
            message = f"{self._skewed - self._skewed_told} observations skewed by more than {self._sync.max_skew * 1e-9:.3f} s"
            self._skewed_told = self._skewed
            return WARN, message, values
        return OK, f"serving {self._served.rate():.1f} Hz", values


def main() -> None:
    run_node(CameraSync)


if __name__ == "__main__":
    main()
