"""Transitions that are changes of a frozen image network's features: a baseline for transitions
that are learned from video.

Letters: B batch, K latent tokens, D numbers per token, S image side in px.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from alam_core.latent_action.config import ENCODER_NETWORKS, TransitionConfig
from alam_core.latent_action.encoder import PotentialDifference
from alam_core.latent_action.perceptual import PerceptualDistance


@ENCODER_NETWORKS.register("features")
class FeatureEncoder(PotentialDifference):
    """z = f(j) - f(i), where f is the last feature map of AlexNet, trained on ImageNet and frozen,
    averaged over a square of K places. Only the decoder is trained.

    Raises UserError if the weights that ``perceptual`` reads are missing.
    """

    def __init__(self, config: TransitionConfig) -> None:
        super().__init__()
        self.side = math.isqrt(config.latent_tokens)
        lpips = PerceptualDistance("alex").net
        self.network, self.scale = lpips.net, lpips.scaling_layer

    def potential(self, images: Tensor) -> Tensor:
        """f of single frames (B, 3, S, S) in [0, 1] -> (B, K, D), float32."""
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            last = self.network(self.scale(2.0 * images.float() - 1.0))[-1]  # (B, D, h, w)
            return F.adaptive_avg_pool2d(last, self.side).flatten(2).mT
