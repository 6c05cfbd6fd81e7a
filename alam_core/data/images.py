"""Image resizing: data sets, simulators, ROS nodes and policies all call ``resize_images``.

H, W: image height and width, N: number of images.
"""

import functools
from typing import Any

import numpy as np

EXACT = 2**24  # sums of integers up to this value are exact in float32, in any order


def resize_images(images: np.ndarray, size: int) -> np.ndarray:
    """Crop each image to its centred square and resize that to ``size`` x ``size`` pixels by area
    averaging.

    images: uint8 (N, H, W, 3) or one image (H, W, 3). Returns uint8 of shape (N, size, size, 3) or
    (size, size, 3).

    Every output pixel is the mean of the source area that it covers; a source pixel on the border
    of that area is weighted by the fraction inside. The sums are integers, rounded half up, so the
    result is bitwise the same for any batch size, machine and number of threads. Raises ValueError
    for another dtype or shape.
    """
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or images.shape[-1] != 3:
        raise ValueError(
            f"images must be uint8 (N, H, W, 3) or (H, W, 3), not {images.dtype} {images.shape}"
        )
    if images.ndim == 3:
        return resize_images(images[None], size)[0]
    height, width = images.shape[1:3]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = images[:, top : top + side, left : left + side]  # (N, side, side, 3)
    if side == size:
        return square
    if side % size == 0:  # whole blocks give the same sums without matrix products
        block = side // size
        total = sum(
            square[:, i::block, j::block].astype(np.uint32)
            for i in range(block)
            for j in range(block)
        )
        return ((2 * total + block * block) // (2 * block * block)).astype(np.uint8)
    weights, exact_weights = _overlaps(side, size)  # (size, side), sparse
    out = np.empty((len(images), size, size, 3), np.uint8)
    for i, image in enumerate(square):
        # (size, side * 3), values up to 255 * side
        rows = weights @ image.astype(np.float32).reshape(side, side * 3)
        rows = (  # the axes are swapped for the sum over the other axis
            rows.reshape(size, side, 3)
            .transpose(1, 0, 2)
            .astype(exact_weights.dtype, order="C")
            .reshape(side, size * 3)
        )
        total = (exact_weights @ rows).reshape(size, size, 3).transpose(1, 0, 2).astype(np.int64)
        out[i] = (2 * total + side * side) // (2 * side * side)
    return out


@functools.lru_cache(maxsize=16)
def _overlaps(side: int, size: int) -> tuple[Any, Any]:
    """Overlap of output cell o with source pixel i along one axis, in units of 1 / size pixels:
    integers, each row sums to ``side``.

    Returns a sparse matrix (size, side) twice: in float32, and in a dtype in which the sums over
    both axes are exact.
    """
    from scipy.sparse import csr_array

    cell = np.arange(size)[:, None] * side
    pixel = np.arange(side)[None] * size
    shared = np.maximum(np.minimum(cell + side, pixel + size) - np.maximum(cell, pixel), 0)
    exact = np.float32 if 255 * side * side <= EXACT else np.float64
    return csr_array(shared.astype(np.float32)), csr_array(shared.astype(exact))
