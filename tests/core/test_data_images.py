"""resize_images computes the exact means of areas."""

import numpy as np
import pytest

from alam_core.data.images import resize_images


def exact_area_mean(image: np.ndarray, size: int) -> np.ndarray:
    """Area means by brute force: blow every source pixel up ``size`` times, then average whole
    blocks.
    """
    side = len(image)
    fine = image.astype(np.int64).repeat(size, axis=0).repeat(size, axis=1)
    total = fine.reshape(size, side, size, side, 3).sum(axis=(1, 3))
    return (2 * total + side * side) // (2 * side * side)


@pytest.mark.parametrize(("side", "size"), [(12, 4), (13, 5), (7, 3), (5, 8), (24, 12), (48, 47)])
def test_every_pixel_is_the_mean_of_the_area_it_covers(side: int, size: int) -> None:
    images = np.random.default_rng(side).integers(0, 256, (2, side, side, 3), dtype=np.uint8)
    resized = resize_images(images, size)
    assert resized.dtype == np.uint8
    for image, small in zip(images, resized, strict=True):
        assert np.array_equal(small, exact_area_mean(image, size))


def test_a_batch_and_its_single_images_agree_bit_for_bit() -> None:
    images = np.random.default_rng(0).integers(0, 256, (9, 61, 83, 3), dtype=np.uint8)
    together = resize_images(images, 24)
    assert all(
        np.array_equal(resize_images(image, 24), small)
        for image, small in zip(images, together, strict=True)
    )


@pytest.mark.parametrize("value", [0, 1, 127, 254, 255])
def test_a_flat_image_keeps_its_value(value: int) -> None:
    assert (resize_images(np.full((1, 480, 640, 3), value, np.uint8), 96) == value).all()


def test_images_that_are_not_square_are_cropped_to_their_centre() -> None:
    wide = np.zeros((4, 10, 3), np.uint8)
    wide[:, 3:7] = 200
    assert (resize_images(wide, 2) == 200).all()
    assert (resize_images(wide.transpose(1, 0, 2), 2) == 200).all()


@pytest.mark.parametrize(
    "bad",
    [np.zeros((4, 4, 3), np.float32), np.zeros((4, 4), np.uint8), np.zeros((1, 4, 4, 4), np.uint8)],
)
def test_other_arrays_are_refused(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match="uint8"):
        resize_images(bad, 2)
