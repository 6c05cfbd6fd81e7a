"""Size and losses of a transition model."""

import math
from dataclasses import dataclass, field

from alam_core.errors import UserError

ENCODERS = ("relational", "residual", "antisymmetric", "potential")
VARIANTS = ("full", "no_rev", "no_add", "no_rev_add", "lam")
OUTPUTS = ("change", "sigmoid")
PERCEPTUAL_NETS = ("alex", "vgg")
ALGEBRA_FORMS = ("paper", "relative", "whitened")
RECONSTRUCTION_FORMS = ("paper", "relative")


def _check(owner: str, name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UserError(f"{owner}{name} is '{value}': choose one of {', '.join(choices)}")


@dataclass
class LossConfig:
    """Weights of the five terms of eq. 9 and the scale each is measured on. The paper: all 1, both
    scales "paper".

    Args:
        rec: weight of the pixel reconstruction (eq. 8).
        perc: weight of the LPIPS distance (eq. 8); above 0 it needs the weights named in
            ``perceptual.py``.
        add: weight of composition consistency (eq. 7).
        rev: weight of reversal consistency (eq. 7).
        vq: weight of the commitment to the codebook (eq. 5).
        perc_net: network of the LPIPS distance, "alex" or "vgg" (the released code's).
        algebra: scale of add, rev and vq. "paper": squared L2 as printed, which shrinking z also
            satisfies. "relative": divided by the mean energy of z, which no scaling changes.
            "whitened": in units of z's covariance, which stretching one direction over the others
            does not satisfy either.
        reconstruction: scale of rec. "paper": squared L2 summed over the image. "relative": divided
            by the error of copying the source.
    """

    rec: float = 1.0
    perc: float = 0.0
    add: float = 10.0
    rev: float = 10.0
    vq: float = 1.0
    perc_net: str = "alex"
    algebra: str = "whitened"
    reconstruction: str = "relative"

    def __post_init__(self) -> None:
        _check("losses.", "perc_net", self.perc_net, PERCEPTUAL_NETS)
        _check("losses.", "algebra", self.algebra, ALGEBRA_FORMS)
        _check("losses.", "reconstruction", self.reconstruction, RECONSTRUCTION_FORMS)


@dataclass
class TransitionConfig:
    """A transition model. The defaults train in minutes on one CPU thread.

    Args:
        encoder: how z is made: "relational", "residual", "antisymmetric" or "potential" (see
            ``TransitionEncoder``).
        variant: row of the paper's Table 4: "full" (ALAM), "no_rev", "no_add", "no_rev_add" without
            those losses, or "lam": on the pairs of neighbours in a triplet only, without algebraic
            losses.
        image_size: side of the square images inside, in px.
        patch_size: side of a patch, in px.
        width: of the Transformers.
        heads: attention heads.
        encoder_layers: depth of the relational encoder.
        decoder_layers: depth of the decoder.
        latent_tokens: learnable queries K, hence tokens in a transition.
        latent_dim: numbers in a token.
        codebook_size: entries of the codebook.
        codebook_decay: decay of the codebook's moving average.
        warmup_steps: for so many training steps the model is a plain autoencoder: z goes around the
            codebook and the algebraic losses have no weight, so that z is in use before it is
            shaped.
        ramp_steps: over so many steps after the warm-up the weights of the algebraic losses rise to
            their values.
        embed_norm: layer norms before and after the embedding of patches.
        output: what the decoder predicts, the "change" from the source or the frame through a
            "sigmoid".
        input_gain: frames enter as input_gain * (image - 0.5).
        difference_gain: the encoder also sees difference_gain * (target - source); 0 leaves it out.
        losses: what is minimised.
    """

    encoder: str = "residual"
    variant: str = "full"
    image_size: int = 64
    patch_size: int = 16
    width: int = 128
    heads: int = 4
    encoder_layers: int = 3
    decoder_layers: int = 3
    latent_tokens: int = 7
    latent_dim: int = 32
    codebook_size: int = 256
    codebook_decay: float = 0.99
    warmup_steps: int = 300
    ramp_steps: int = 300
    embed_norm: bool = False
    output: str = "change"
    input_gain: float = 4.0
    difference_gain: float = 8.0
    losses: LossConfig = field(default_factory=LossConfig)

    def __post_init__(self) -> None:
        _check("", "encoder", self.encoder, ENCODERS)
        _check("", "variant", self.variant, VARIANTS)
        _check("", "output", self.output, OUTPUTS)
        if not 1 <= self.patch_size <= self.image_size:
            raise UserError(
                f"patch_size {self.patch_size} does not fit image_size {self.image_size}: choose 1 to {self.image_size}"
            )
        if self.losses.perc > 0 and self.image_size < 32:
            raise UserError(
                f"image_size {self.image_size} is too small for the perceptual loss: 32 or more, or losses.perc 0"
            )
        if self.width % self.heads:
            raise UserError(
                f"width {self.width} is no multiple of heads {self.heads}: change one of them"
            )

    @property
    def patches(self) -> int:
        """Patches a frame, those that lie partly outside included."""
        return math.ceil(self.image_size / self.patch_size) ** 2
