"""Conversions between ROS messages and numpy: images, stamps, joint states. Images are converted
without cv_bridge, which is not installed everywhere.
"""

from collections.abc import Sequence

import numpy as np
from builtin_interfaces.msg import Time
from sensor_msgs.msg import Image, JointState

from alam_core.data.raw_images import decode_raw_image
from alam_core.robots.joint_states import named_positions
from alam_core.robots.piper import JOINT_NAMES

NANOSECONDS = 1_000_000_000


def image_to_numpy(message: Image, topic: str = "image") -> np.ndarray:
    """A colour or grey image message as uint8 RGB (H, W, 3); padding at the end of rows is removed.

    Raises UserError, naming ``topic``, for another encoding, and BrokenImage for a size that does
    not fit the data.
    """
    return decode_raw_image(message, topic)


def numpy_to_image(image: np.ndarray, stamp: Time, frame_id: str = "") -> Image:
    """uint8 RGB (H, W, 3) as an rgb8 message. Raises ValueError for another dtype or shape."""
    height, width, channels = image.shape
    if channels != 3 or image.dtype != np.uint8:
        raise ValueError(f"image must be uint8 (H, W, 3), not {image.dtype} {image.shape}")
    message = Image(height=height, width=width, encoding="rgb8", step=width * 3)
    message.header.stamp = stamp
    message.header.frame_id = frame_id
    # ``data`` is an array.array, filled at once; assigning bytes would check every element.
    message.data.frombytes(np.ascontiguousarray(image).tobytes())
    return message


def stamp_to_ns(stamp: Time) -> int:
    """A stamp as whole nanoseconds."""
    return stamp.sec * NANOSECONDS + stamp.nanosec


def ns_to_stamp(nanoseconds: int) -> Time:
    """Whole nanoseconds (>= 0) as a stamp."""
    return Time(sec=nanoseconds // NANOSECONDS, nanosec=nanoseconds % NANOSECONDS)


def stamp_to_seconds(stamp: Time) -> float:
    """A stamp in s."""
    return stamp.sec + stamp.nanosec * 1e-9


def seconds_to_stamp(seconds: float) -> Time:
    """Seconds (>= 0) as a stamp, rounded to the nanosecond."""
    return ns_to_stamp(round(seconds * NANOSECONDS))


def joint_positions(message: JointState, names: Sequence[str] = JOINT_NAMES) -> np.ndarray:
    """The positions of the joints ``names``, by default the Piper's: float32 (J,), rad and m. Those
    of all joints in the message's order if ``names`` is empty.

    Raises ValueError with one line if a joint is missing, has no finite position or is named twice.
    """
    found = named_positions(message.name, message.position)
    names = names or list(found)
    missing = [name for name in names if name not in found]
    if missing:
        raise ValueError(f"joint state lacks {', '.join(missing)}")
    return np.array([found[name] for name in names], dtype=np.float32)
