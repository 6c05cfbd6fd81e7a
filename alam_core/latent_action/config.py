"""Size and losses of a transition model."""

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from alam_core.errors import UserError
from alam_core.registry import Registry

Variant = Literal["full", "no_rev", "no_add", "no_rev_add", "lam"]
AlgebraScale = Literal["paper", "relative", "whitened"]
ReconstructionScale = Literal["paper", "relative"]

FEATURES = 256  # numbers in a place of AlexNet's last feature map

# The networks that compute z, by the names that ``TransitionConfig.encoder`` takes.
ENCODER_NETWORKS: Registry[Any] = Registry(
    "encoder",
    "alam.encoder_networks",
    modules=(
        "alam_core.latent_action.encoder",
        "alam_core.latent_action.convolutional",
        "alam_core.latent_action.gaussian",
        "alam_core.latent_action.features",
    ),
)


@dataclass
class LossConfig:
    """Weights of the five terms of eq. 9, and the scale that each is measured on.

    In the paper all weights are 1 and both scales are "paper".

    Args:
        rec: weight of the pixel reconstruction (eq. 8).
        perc: weight of the LPIPS distance (eq. 8); above 0 it needs the weights that
            ``perceptual.py`` names.
        add: weight of composition consistency (eq. 7).
        rev: weight of reversal consistency (eq. 7).
        vq: weight of the commitment to the codebook (eq. 5).
        kl: weight of the divergence from the unit normal distribution, for the encoder "gaussian".
        perc_net: network of the LPIPS distance, "alex" or "vgg"; the released code uses "vgg".
        algebra: scale of add, rev and vq. "paper": squared L2 norm, as printed; a smaller z also
            lowers it. "relative": divided by the mean energy of z, so that scaling z does not
            change it. "whitened": in units of the covariance of z, so that stretching one direction
            of z does not change it either.
        reconstruction: scale of rec. "paper": squared L2 norm over the image. "relative": divided
            by the error of copying the source frame.
    """

    rec: float = 1.0
    perc: float = 0.0
    add: float = 10.0
    rev: float = 10.0
    vq: float = 1.0
    kl: float = 0.005
    perc_net: Literal["alex", "vgg"] = "alex"
    algebra: AlgebraScale = "whitened"
    reconstruction: ReconstructionScale = "relative"


@dataclass
class TransitionConfig:
    """A transition model. The defaults train in minutes on one CPU thread.

    Args:
        encoder: how z is computed: "relational", "residual", "antisymmetric", "potential" (see
            ``alam_core.latent_action.encoder``), "keypoints" (``convolutional``), "gaussian" or
            "features" (the modules of their names).
        decoder: "transformer", as in the paper, or "convolutional", which sees finer detail and,
            with an exact encoder, also what the encoder made of the source frame.
        variant: row of the paper's Table 4. "full": ALAM. "no_rev", "no_add", "no_rev_add": without
            these losses. "lam": trained on the two adjacent pairs of a triplet only, without
            algebraic losses.
        image_size: side of the square images that the model takes, in px.
        patch_size: side of a patch, in px.
        width: width of the Transformers' tokens.
        heads: number of attention heads.
        encoder_layers: layers of the encoder.
        decoder_layers: layers of the decoder.
        latent_tokens: number K of learnable queries, which is the number of tokens of a transition.
        latent_dim: numbers per token of a transition.
        keypoints: number of keypoints at each of two strides, for the encoder "keypoints"; their
            coordinates are the first numbers of z.
        codebook_size: entries of the codebook; 0: none.
        codebook_decay: decay of the codebook's moving average.
        warmup_steps: training steps before the codebook and the algebraic losses are switched on.
            Until then the model is a plain autoencoder, so that it uses z before z is constrained.
        ramp_steps: training steps after the warm-up in which the weights of the algebraic losses
            rise from 0 to their values.
        embed_norm: apply layer norms before and after the embedding of patches.
        output: what the decoder predicts: "change", the difference to the source frame, or
            "sigmoid", the target frame itself through a sigmoid.
        input_gain: frames enter as input_gain * (image - 0.5).
        difference_gain: the encoder also sees difference_gain * (target - source); 0 leaves it out.
        losses: weights and scales of the losses.
    """

    encoder: str = "residual"
    decoder: Literal["transformer", "convolutional"] = "transformer"
    variant: Variant = "full"
    image_size: int = 64
    patch_size: int = 16
    width: int = 128
    heads: int = 4
    encoder_layers: int = 3
    decoder_layers: int = 3
    latent_tokens: int = 7
    latent_dim: int = 32
    keypoints: int = 16
    codebook_size: int = 256
    codebook_decay: float = 0.99
    warmup_steps: int = 300
    ramp_steps: int = 300
    embed_norm: bool = False
    output: Literal["change", "sigmoid"] = "change"
    input_gain: float = 4.0
    difference_gain: float = 8.0
    losses: LossConfig = field(default_factory=LossConfig)

    def __post_init__(self) -> None:
        ENCODER_NETWORKS.get(self.encoder)  # raises UserError for an unknown name
        convolutional = self.encoder == "keypoints" or self.decoder == "convolutional"
        if convolutional and self.image_size % 16:
            raise UserError(
                f"image_size is {self.image_size}: convolutional networks need a multiple of 16"
            )
        numbers = self.latent_tokens * self.latent_dim
        if self.encoder == "keypoints" and not 0 < 4 * self.keypoints < numbers:
            raise UserError(
                f"keypoints is {self.keypoints}: choose 1 to {(numbers - 1) // 4}, as four "
                f"coordinates of each must fit into the {numbers} numbers of a transition"
            )
        if self.encoder == "gaussian" and self.codebook_size:
            raise UserError(
                f"codebook_size is {self.codebook_size}: the encoder gaussian needs 0, as noise "
                "limits what its transitions tell"
            )
        if self.encoder == "features" and (
            self.latent_dim != FEATURES or math.isqrt(self.latent_tokens) ** 2 != self.latent_tokens
        ):
            raise UserError(
                f"the encoder features needs latent_dim {FEATURES} and a square number of "
                f"latent_tokens, not {self.latent_dim} and {self.latent_tokens}"
            )
        if not 1 <= self.patch_size <= self.image_size:
            raise UserError(
                f"patch_size {self.patch_size} does not fit image_size {self.image_size}: choose 1 "
                f"to {self.image_size}"
            )
        if self.image_size < 32 and (self.losses.perc > 0 or self.encoder == "features"):
            raise UserError(
                f"image_size {self.image_size} is too small for AlexNet: 32 or more, or another "
                "encoder and losses.perc 0"
            )
        if self.width % self.heads:
            raise UserError(
                f"width {self.width} is not a multiple of heads {self.heads}: change one of them"
            )

    @property
    def patches(self) -> int:
        """Patches of a frame, including those that lie partly outside it."""
        return math.ceil(self.image_size / self.patch_size) ** 2
