"""The simulated world as a real process over DDS."""

from collections.abc import Callable

import can
import numpy as np
import pytest
from alam_msgs.msg import Processed, TaskStatus
from alam_msgs.srv import ResetWorld
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from rclpy.qos import qos_profile_sensor_data
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image

from alam_common.messages import image_to_numpy, stamp_to_ns
from alam_core.types import VIEWS

MS = 1_000_000
FRAME = 100 * MS


class Listener:
    """Collects what the simulator publishes."""

    def __init__(self, ros) -> None:
        self.ros = ros
        self.clock = ros.collect(Clock, "/clock", qos_profile_sensor_data)
        self.images = {
            view: ros.collect(Image, f"/{view}/color/image_raw", qos_profile_sensor_data)
            for view in VIEWS
        }
        self.status = ros.collect(TaskStatus, "/alam/task_status")
        self.diagnostics = ros.collect(DiagnosticArray, "/diagnostics")
        self.processed = ros.node.create_publisher(Processed, "/alam/processed", 10)

    def time(self) -> int:
        """The newest time on /clock in ns, 0 if there is none."""
        return stamp_to_ns(self.clock[-1].clock) if self.clock else 0

    def done(self, stamp: int, name: str = "slow_node") -> None:
        """Report to the simulator that a node has processed the observation of ``stamp``."""
        message = Processed(node=name)
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, 1_000_000_000)
        self.processed.publish(message)

    def says(self, text: str) -> bool:
        return any(
            text in status.message for array in self.diagnostics[-2:] for status in array.status
        )


@pytest.fixture
def sim(ros) -> Listener:
    return Listener(ros)


def stamps(images: list[Image]) -> list[int]:
    return [stamp_to_ns(image.header.stamp) for image in images]


def test_clock_images_judgement_and_reset(
    start_node: Callable, ros, sim: Listener, can_udp_port: int
) -> None:
    start_node("alam_sim", "sim_node", {"can_port": can_udp_port, "seed": 3, "camera_size": 48})
    ros.wait_for(
        lambda: all(len(images) >= 12 for images in sim.images.values()), timeout=120, what="images"
    )
    times = [stamp_to_ns(message.clock) for message in sim.clock]
    assert all(
        later - earlier > 0 and (later - earlier) % (5 * MS) == 0
        for earlier, later in zip(times, times[1:], strict=False)
    )
    for view in VIEWS:
        assert all(stamp % FRAME == 0 for stamp in stamps(sim.images[view]))
        assert set(np.diff(stamps(sim.images[view]))) <= {
            FRAME,
            2 * FRAME,
        }  # best effort: one may be lost
        assert sim.images[view][0].header.frame_id == f"{view}_color_optical_frame"
        assert image_to_numpy(sim.images[view][-1]).shape == (48, 48, 3)
    assert {(status.seed, status.success) for status in sim.status} == {(3, False)}

    before = sim.images["third_person"][-1]
    answer = ros.call(ResetWorld, "/alam/sim/reset", ResetWorld.Request(seed=4))
    assert answer.success and answer.instruction
    ros.wait_for(
        lambda: (
            sim.status[-1].seed == 4
            and stamps(sim.images["third_person"])[-1] > stamp_to_ns(before.header.stamp) + FRAME
        )
    )
    assert sim.status[-1].instruction == answer.instruction
    after = image_to_numpy(sim.images["third_person"][-1]).astype(int)
    assert np.abs(after - image_to_numpy(before)).mean() > 2  # the scene has changed
    times = [stamp_to_ns(message.clock) for message in sim.clock]
    assert times == sorted(times)  # a new episode does not set the clock back


def test_a_reset_with_a_bad_seed_is_refused_and_the_simulation_goes_on(
    start_node: Callable, ros, sim: Listener, can_udp_port: int
) -> None:
    process = start_node(
        "alam_sim", "sim_node", {"can_port": can_udp_port, "camera_size": 48, "seed": 3}
    )
    ros.wait_for(lambda: sim.status, timeout=120, what="the simulator")
    answer = ros.call(ResetWorld, "/alam/sim/reset", ResetWorld.Request(seed=-1))
    assert not answer.success and "seed -1" in answer.message
    seen = len(sim.status)
    ros.wait_for(
        lambda: len(sim.status) > seen + 3 and sim.status[-1].seed == 3,
        what="the old episode going on",
    )
    assert process.poll() is None


def test_the_simulation_waits_for_a_slow_node_and_goes_on_without_a_dead_one(
    start_node: Callable, ros, sim: Listener, can_udp_port: int
) -> None:
    start_node(
        "alam_sim",
        "sim_node",
        {"can_port": can_udp_port, "camera_size": 48, "speed": 0.0, "patience": 6.0},
    )
    ros.wait_for(
        lambda: sim.images["wrist"] and sim.processed.get_subscription_count(),
        timeout=120,
        what="the simulator",
    )
    first = stamps(sim.images["wrist"])[-1]
    ros.wait_for(
        lambda: sim.says("waiting for slow_node"), what="the wait", again=lambda: sim.done(first)
    )
    stopped_at = sim.time()
    seen = stamps(sim.images["wrist"])[-1]
    assert seen == stopped_at or seen == stopped_at // FRAME * FRAME

    for _ in range(
        6
    ):  # each frame is processed late: time stands still meanwhile, no frame is skipped
        ros.wait_for(
            lambda seen=seen: stamps(sim.images["wrist"])[-1] > seen,
            what="the next frame",
            again=lambda seen=seen: sim.done(seen),
        )
        ros.wait_for(lambda seen=seen: sim.time() == seen + FRAME, what="the clock")
        for _ in range(6):
            ros.executor.spin_once(timeout_sec=0.05)
        assert sim.time() == seen + FRAME
        assert stamps(sim.images["wrist"])[-1] == seen + FRAME
        seen += FRAME

    ros.wait_for(lambda: sim.time() > seen + 10 * FRAME, what="going on without the dead node")
    ros.wait_for(lambda: sim.says("no longer waiting for slow_node"), what="the diagnosis")
    ros.wait_for(  # it is back
        lambda: sim.says("waiting for slow_node") and not sim.says("no longer"),
        what="the wait",
        again=lambda: sim.done(stamps(sim.images["wrist"])[-1]),
    )


def test_a_camera_can_be_silenced(
    start_node: Callable, ros, sim: Listener, can_udp_port: int
) -> None:
    start_node("alam_sim", "sim_node", {"can_port": can_udp_port, "camera_size": 48})
    ros.wait_for(lambda: all(sim.images.values()), timeout=120, what="images")
    value = ParameterValue(type=ParameterType.PARAMETER_STRING, string_value="wrist")
    request = SetParameters.Request(parameters=[Parameter(name="muted_views", value=value)])
    assert ros.call(SetParameters, "/sim_node/set_parameters", request).results[0].successful
    start = sim.time() + FRAME
    ros.wait_for(
        lambda: stamps(sim.images["third_person"])[-1] > start + 5 * FRAME, what="the other camera"
    )
    assert stamps(sim.images["wrist"])[-1] <= start


@pytest.mark.slow
def test_the_arm_gives_feedback_while_an_image_is_rendered(
    start_node: Callable, ros, can_udp_port: int
) -> None:
    """Else a simulator on a busy machine looks like an arm that is lost."""
    parameters = {"realtime": True, "can_port": can_udp_port, "camera_size": 2048}
    start_node("alam_sim", "sim_node", parameters)
    frames = ros.collect(TaskStatus, "/alam/task_status")  # one with each pair of images
    ros.wait_for(lambda: frames, 120, "the first images")
    times: list[float] = []  # of feedback, s, according to the kernel
    with can.Bus(
        interface="udp_multicast", channel="239.74.163.2", port=can_udp_port, hop_limit=0
    ) as bus:

        def listen() -> bool:
            while (message := bus.recv(0)) is not None:
                if message.arbitration_id == 0x2A7:
                    times.append(message.timestamp)
            return len(frames) >= 20

        frames.clear()
        ros.wait_for(listen, 120, "20 pairs of images")
    interval = np.median(np.diff([stamp_to_ns(status.header.stamp) for status in frames])) * 1e-9
    gaps = np.diff(times)
    # Without a repetition nearly all of the time is in gaps of the length of a rendering.
    assert gaps[gaps > interval / 2].sum() < 0.3 * gaps.sum(), (interval, np.sort(gaps)[-20:])


def test_realtime_publishes_no_clock(
    start_node: Callable, ros, sim: Listener, can_udp_port: int
) -> None:
    start_node(
        "alam_sim", "sim_node", {"can_port": can_udp_port, "camera_size": 48, "realtime": True}
    )
    ros.wait_for(
        lambda: sim.images["wrist"] and sim.processed.get_subscription_count(),
        timeout=120,
        what="images",
    )
    sim.done(stamps(sim.images["wrist"])[0])  # the simulator waits for no node
    ros.wait_for(lambda: len(sim.images["wrist"]) > 10, what="images")
    assert not sim.clock
    now = ros.node.get_clock().now().nanoseconds
    assert now - 60_000 * MS < stamps(sim.images["wrist"])[-1] <= now


def test_a_resource_missing_or_in_use_gives_one_line(
    start_node: Callable, ros, sim: Listener, can_udp_port: int
) -> None:
    start_node("alam_sim", "sim_node", {"can_port": can_udp_port, "camera_size": 48})
    ros.wait_for(lambda: sim.clock, timeout=120, what="the simulator")
    no_gl = {"__EGL_VENDOR_LIBRARY_DIRS": "/nowhere"}
    cases = {
        "CAN bus": start_node("alam_sim", "sim_node", {"can_port": can_udp_port}, name="second"),
        "GL": start_node(
            "alam_sim", "sim_node", {"can_port": can_udp_port + 100}, name="blind", env=no_gl
        ),
        "'seed' must be integer, 0 to": start_node(
            "alam_sim", "sim_node", {"seed": -1}, name="negative"
        ),
        "there is no world": start_node("alam_sim", "sim_node", {"world": "moon"}, name="moon"),
    }
    for text, process in cases.items():
        assert process.wait(120) == 2
        assert process.last_line().startswith("error: ") and text in process.last_line()
        assert not any("Traceback" in line for line in process.lines)
