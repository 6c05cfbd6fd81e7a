"""Stage 1: latent transitions learned from video without actions."""

from alam_core.latent_action.config import LossConfig, TransitionConfig
from alam_core.latent_action.inference import encode_images
from alam_core.latent_action.interface import TransitionEncoder
from alam_core.latent_action.model import TransitionModel

__all__ = [
    "LossConfig",
    "TransitionConfig",
    "TransitionEncoder",
    "TransitionModel",
    "encode_images",
]
