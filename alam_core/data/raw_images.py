"""Decodes images as a ROS message (sensor_msgs/Image) carries them, from bags and from a running
robot. ROS is not needed: a message is any object with the fields of ``RawImage``.
"""

from typing import Any, Literal, Protocol

import numpy as np

from alam_core.errors import UserError

ChannelOrder = Literal["", "rgb", "bgr"]
_CHANNELS = {  # encoding -> bytes per pixel, indices of the red, green and blue channel
    "rgb8": (3, [0, 1, 2]),
    "bgr8": (3, [2, 1, 0]),
    "rgba8": (4, [0, 1, 2]),
    "bgra8": (4, [2, 1, 0]),
    "mono8": (1, [0, 0, 0]),
    "8uc1": (1, [0, 0, 0]),
}
_UNORDERED = {"8uc3": "{}8", "8uc4": "{}a8"}  # encoding -> the one that states the order
ACCEPTED = "rgb8, bgr8, rgba8, bgra8 or mono8"


class RawImage(Protocol):
    """The fields of sensor_msgs/Image that matter here."""

    height: int
    width: int
    encoding: str
    step: int  # bytes per row
    data: Any  # a buffer of uint8


class BrokenImage(UserError):
    """One image whose size does not fit its data; the next one may be good."""


def check_raw_image(message: RawImage, what: str, channels: ChannelOrder = "") -> None:
    """Raise UserError, naming ``what``, for an encoding that is not read, and BrokenImage for a
    size that does not fit the data. channels: order of the channels of 8UC3 and 8UC4 images, whose
    encoding does not state it.
    """
    _layout(message, what, channels)


def decode_raw_image(message: RawImage, what: str, channels: ChannelOrder = "") -> np.ndarray:
    """A colour or grey image as uint8 RGB (H, W, 3); padding at the end of rows is removed. Raises
    as ``check_raw_image`` does.
    """
    width, order = _layout(message, what, channels)
    rows = np.frombuffer(message.data, np.uint8).reshape(message.height, message.step)
    pixels = rows[:, : message.width * width].reshape(message.height, message.width, width)
    if width == 3 and order == [0, 1, 2]:
        return np.ascontiguousarray(pixels)
    return np.ascontiguousarray(pixels[:, :, order])


def _layout(message: RawImage, what: str, channels: ChannelOrder) -> tuple[int, list[int]]:
    """Bytes per pixel, and the indices of the red, green and blue channel."""
    encoding = message.encoding.lower()
    if encoding in _UNORDERED and channels:
        encoding = _UNORDERED[encoding].format(channels)
    if encoding not in _CHANNELS:
        raise UserError(f"{what} carries '{message.encoding}' images; {_advice(encoding)}")
    width, order = _CHANNELS[encoding]
    row, size = message.width * width, len(message.data)
    if not row or not message.height or message.step < row or size != message.height * message.step:
        raise BrokenImage(
            f"{what} carries a broken image: {message.width}x{message.height} "
            f"{message.encoding}, step {message.step}, {size} bytes"
        )
    return width, order


def _advice(encoding: str) -> str:
    """What to do about an encoding that is not read, in lower case."""
    if encoding in _UNORDERED:
        return (
            "this encoding does not tell red from blue: let the camera publish rgb8 or bgr8, or "
            "state the order with the option 'channels': rgb or bgr"
        )
    if encoding in ("16uc1", "32fc1", "mono16"):
        return f"give a topic with {ACCEPTED} (is it a depth topic?)"
    return (
        f"let the camera publish {ACCEPTED}, or convert them with the ROS package image_proc and "
        "give its topic"
    )
