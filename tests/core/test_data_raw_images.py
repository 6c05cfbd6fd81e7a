"""Images as ROS messages carry them become RGB, or one line says what to do."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from alam_core.data.raw_images import BrokenImage, check_raw_image, decode_raw_image
from alam_core.errors import UserError


@dataclass
class Message:
    height: int
    width: int
    encoding: str
    step: int
    data: object


RGB = np.random.default_rng(0).integers(0, 255, (4, 7, 3), dtype=np.uint8)
RGBA = np.concatenate([RGB, RGB[:, :, :1]], axis=2)


def message(pixels: np.ndarray, encoding: str, padding: int = 3) -> Message:
    """Pixels (H, W, channels) whose rows end with ``padding`` meaningless bytes."""
    height, width, channels = pixels.shape
    rows = np.full((height, width * channels + padding), 255, np.uint8)
    rows[:, : width * channels] = pixels.reshape(height, -1)
    return Message(height, width, encoding, rows.shape[1], rows.ravel())


@pytest.mark.parametrize(
    ("pixels", "encoding", "channels"),
    [
        (RGB, "rgb8", ""),
        (RGB, "RGB8", ""),
        (RGB, "8UC3", "rgb"),
        (RGB[:, :, ::-1], "bgr8", "rgb"),  # what the encoding states counts
        (RGB[:, :, ::-1], "8UC3", "bgr"),
        (RGBA, "rgba8", ""),
        (RGBA, "8UC4", "rgb"),
        (RGBA[:, :, [2, 1, 0, 3]], "8UC4", "bgr"),
    ],
)
def test_every_order_of_channels_gives_the_same_image(
    pixels: np.ndarray, encoding: str, channels: str
) -> None:
    np.testing.assert_array_equal(decode_raw_image(message(pixels, encoding), "/a", channels), RGB)


@pytest.mark.parametrize("encoding", ["mono8", "8UC1"])
def test_one_channel_is_grey(encoding: str) -> None:
    grey = decode_raw_image(message(RGB[:, :, :1], encoding), "/a")
    np.testing.assert_array_equal(grey, np.repeat(RGB[:, :, :1], 3, axis=2))


@pytest.mark.parametrize(
    ("encoding", "advice"),
    [
        ("8UC3", "publish rgb8 or bgr8, or state the order with the option 'channels': rgb or bgr"),
        ("8UC4", "'channels': rgb or bgr"),
        ("16UC1", "is it a depth topic?"),
        ("bayer_rggb8", "image_proc"),
        ("yuv422_yuy2", "let the camera publish rgb8, bgr8, rgba8, bgra8 or mono8"),
    ],
)
def test_an_encoding_that_is_not_read_has_a_way_out(encoding: str, advice: str) -> None:
    with pytest.raises(UserError, match="/a carries") as error:
        check_raw_image(message(RGB, encoding), "/a")
    assert f"'{encoding}'" in str(error.value) and advice in str(error.value)
    assert not isinstance(error.value, BrokenImage) and "\n" not in str(error.value)


def test_a_size_that_does_not_fit_the_data_is_a_broken_image() -> None:
    good = message(RGB, "bgr8")
    check_raw_image(good, "/a")
    for bad in (
        replace(good, data=good.data[:-1]),  # type: ignore[index]
        replace(good, data=b""),
        replace(good, step=20),
        replace(good, height=0),
        replace(good, width=0),
    ):
        with pytest.raises(BrokenImage, match="/a carries a broken image"):
            decode_raw_image(bad, "/a")
