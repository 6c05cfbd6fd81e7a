"""A publisher of action chunks: a smooth motion of all joints that stays within the controller's
default limits, for measurements.

``python -m alam_demo.motion_stream NAMESPACE`` runs it as a process of its own, from the arm's
present set-point on.
"""

import math
import os
import sys
import time

import numpy as np
import rclpy
from alam_msgs.msg import ActionChunk, ArmStatus
from rclpy.node import Node

from alam_common.messages import seconds_to_stamp
from alam_core.robots.piper import JOINT_NAMES

CENTRE = np.array([0.0, 1.2, -1.2, 0.0, 0.6, 0.0, 0.05])
"""rad and m: the pose in the middle of the motion."""
AMPLITUDE = np.array([0.4, 0.4, 0.3, 0.4, 0.3, 0.4, 0.02])
"""rad and m, on either side of the middle."""
RATE = 2.3  # rad/s of the phase: the fastest joint reaches 0.92 rad/s
RAMP = 0.3  # s until the phase has its full rate
FADE = 3.0  # s per rad in which a gap at the start fades away
ROWS, DT = 10, 0.05  # rows of a chunk, s between them
EVERY = 0.1  # s between two chunks


class Swing:
    """All joints swing in phase about CENTRE. It begins at rest in a given pose; what separates
    that pose from the nearest one of the swing fades away.
    """

    def __init__(self, pose: np.ndarray, rising: bool, start: float) -> None:
        """pose: (7,). rising: the direction in which joint 1 goes first. start: s."""
        share = float((pose - CENTRE) @ AMPLITUDE / (AMPLITUDE @ AMPLITUDE))
        phase = math.asin(min(max(share, -1.0), 1.0))
        self._phase = phase if rising else math.pi - phase
        self._start = start
        self._gap = pose - CENTRE - AMPLITUDE * math.sin(phase)
        self._fade = max(0.3, FADE * float(np.abs(self._gap).max()))

    def at(self, moment: float) -> np.ndarray:
        """The pose (7,) wanted at a time in s."""
        past = max(0.0, moment - self._start)
        done = past * past / (2.0 * RAMP) if past < RAMP else past - RAMP / 2.0
        left = max(0.0, 1.0 - past / self._fade)
        swing = CENTRE + AMPLITUDE * math.sin(self._phase + RATE * done)
        return swing + self._gap * (left * left * (3.0 - 2.0 * left))


def chunk_message(
    rows: np.ndarray, stamp: float, sequence: int, source: str, dt: float = DT
) -> ActionChunk:
    """A chunk of rows (H, 7) for an observation at ``stamp`` in s."""
    message = ActionChunk(
        source=source,
        sequence=sequence,
        joint_names=list(JOINT_NAMES),
        dt=dt,
        steps=len(rows),
        positions=np.asarray(rows, dtype=float).ravel().tolist(),
    )
    message.header.stamp = seconds_to_stamp(stamp)
    return message


class MotionStream:
    """Publishes chunks of a swing on ``alam/action_chunk``, by a timer of ``node``.

    source: the name that the chunks have. sequence: number of the last chunk.
    """

    def __init__(self, node: Node, source: str) -> None:
        self.source = source
        self.sequence = 0
        self._swing: Swing | None = None
        self._publisher = node.create_publisher(ActionChunk, "alam/action_chunk", 10)
        node.create_timer(EVERY, self._publish_next)

    def begin(self, pose: np.ndarray, rising: bool = True) -> None:
        """Publish from now on, starting near a pose (7,)."""
        self._swing = Swing(pose, rising, time.time())
        self._publish_next()

    def stop(self) -> None:
        """Publish nothing more."""
        self._swing = None

    def send(self, rows: np.ndarray, dt: float = DT) -> None:
        """Publish a chunk of these rows (H, 7) now."""
        self.sequence += 1
        now = time.time()
        self._publisher.publish(chunk_message(rows, now, self.sequence, self.source, dt))

    def _publish_next(self) -> None:
        swing = self._swing
        if swing is None:
            return
        now = time.time()
        self.send(np.array([swing.at(now + (i + 1) * DT) for i in range(ROWS)]))


def main() -> None:
    """Publish until the process is ended."""
    rclpy.init()
    node = Node("motion_stream", namespace=sys.argv[1])
    stream = MotionStream(node, f"motion_stream-{os.getpid()}")

    def begin(status: ArmStatus) -> None:
        if stream.sequence == 0:
            stream.begin(np.array(status.set_point))
            node.destroy_subscription(subscription)

    subscription = node.create_subscription(ArmStatus, "alam/arm/status", begin, 1)
    rclpy.spin(node)


if __name__ == "__main__":
    main()
