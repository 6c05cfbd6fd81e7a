"""Transitions of uint8 images: the path that ROS nodes and the latent cache share.

Letters: N pairs, H, W image height and width, K latent tokens, D numbers per token, S side of the
model's images.
"""

import numpy as np
import torch
from torch import Tensor

from alam_core.data.images import resize_images
from alam_core.latent_action.interface import TransitionEncoder


def to_images(images: np.ndarray, device: torch.device | str = "cpu") -> Tensor:
    """uint8 (N, S, S, 3) -> float in [0, 1] (N, 3, S, S), always a copy, because torch warns about
    read-only arrays such as memory maps.
    """
    return torch.from_numpy(np.array(images)).to(device).permute(0, 3, 1, 2).float() / 255


def encode_images(
    model: TransitionEncoder, source: np.ndarray, target: np.ndarray, batch_size: int = 64
) -> np.ndarray:
    """Continuous transitions z from ``source`` to ``target``, uint8 RGB (N, H, W, 3) each ->
    float32 (N, K * D).

    Images of another size are cropped to a square and resized by ``alam_core.data.images``, as
    everywhere in this project. The model's mode is not changed; no gradients are recorded. Raises
    ValueError for another shape or dtype.
    """
    if source.shape != target.shape or source.ndim != 4:
        raise ValueError(
            f"source and target must both be (N, H, W, 3), not {source.shape} and {target.shape}"
        )
    device = next(model.parameters()).device
    out = np.empty((len(source), model.latent_size), np.float32)
    with torch.inference_mode():
        for first in range(0, len(source), batch_size):
            rows = slice(first, first + batch_size)
            pair = [
                to_images(resize_images(images[rows], model.image_size), device)
                for images in (source, target)
            ]
            out[rows] = model.encode(*pair).flatten(1).float().cpu().numpy()
    return out
