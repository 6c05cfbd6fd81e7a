"""Conversions between ROS messages and numpy: images, stamps, joint states. Images are converted
without cv_bridge, which is not installed everywhere.
"""

import numpy as np
from builtin_interfaces.msg import Time
from sensor_msgs.msg import Image, JointState

from alam_core.errors import UserError
from alam_core.robots.piper import JOINT_NAMES

NANOSECONDS = 1_000_000_000
_CHANNELS = {  # encoding -> indices of the red, green and blue channel
    "rgb8": [0, 1, 2],
    "bgr8": [2, 1, 0],
    "rgba8": [0, 1, 2],
    "bgra8": [2, 1, 0],
    "mono8": [0, 0, 0],
}
# Bytes per pixel.
_WIDTH = {"rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4, "mono8": 1}


def check_encoding(message: Image, topic: str) -> None:
    """Raise UserError, naming ``topic``, if the image has an unsupported encoding."""
    if message.encoding not in _CHANNELS:
        raise UserError(
            f"{topic} carries '{message.encoding}' images; give a topic with one of "
            f"{', '.join(_CHANNELS)} (is it a depth topic?)"
        )


def image_to_numpy(message: Image, topic: str = "image") -> np.ndarray:
    """A colour or grey image message as uint8 RGB (H, W, 3); padding at the end of rows is removed.

    Raises UserError, naming ``topic``, for another encoding or a size that does not fit the data.
    """
    check_encoding(message, topic)
    width = _WIDTH[message.encoding]
    row = message.width * width
    data = np.frombuffer(message.data, dtype=np.uint8)
    if (
        message.height == 0
        or row == 0
        or message.step < row
        or data.size != message.height * message.step
    ):
        raise UserError(
            f"{topic} carries a broken image: {message.width}x{message.height} "
            f"{message.encoding}, step {message.step}, {data.size} bytes"
        )
    pixels = data.reshape(message.height, message.step)[:, :row].reshape(
        message.height, message.width, width
    )
    if message.encoding == "rgb8":
        return np.ascontiguousarray(pixels)
    return np.ascontiguousarray(pixels[:, :, _CHANNELS[message.encoding]])


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


def joint_positions(message: JointState, names: tuple[str, ...] = JOINT_NAMES) -> np.ndarray:
    """The positions of the joints ``names``, in this order: float32 (len(names),), rad and m.

    Raises ValueError with one line if a joint is missing or named twice, or if a position is not a
    finite number.
    """
    if len(message.name) != len(message.position):
        raise ValueError(
            f"joint state has {len(message.name)} names but {len(message.position)} positions"
        )
    found = dict(zip(message.name, message.position, strict=True))
    if len(found) != len(message.name):
        raise ValueError("joint state names a joint twice")
    missing = [name for name in names if name not in found]
    if missing:
        raise ValueError(f"joint state lacks {', '.join(missing)}")
    positions = np.array([found[name] for name in names], dtype=np.float32)
    if not np.isfinite(positions).all():
        raise ValueError("joint state has a position that is not finite")
    return positions
