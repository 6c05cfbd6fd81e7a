"""What a policy is: its network, how it generates, what it sees, generates and commands."""

from dataclasses import dataclass, field

import numpy as np

from alam_core.errors import UserError
from alam_core.policy.generation import PROCESSES
from alam_core.policy.pi0.config import Pi0Config
from alam_core.policy.sequence import MASKS
from alam_core.policy.small import SmallConfig
from alam_core.policy.small.vision import STRIDE as SMALL_STRIDE

BACKBONES = ("small", "pi0")
COUPLINGS = ("joint", "two_stage")
PROJECTIONS = ("pca", "learned", "detached")


@dataclass
class ModelConfig:
    """The network of a policy and how it generates chunks.

    Args:
        backbone: "small", or "pi0": PaliGemma with an action expert.
        horizon: steps H of a chunk; a shorter one may be asked for when acting.
        image_size: px, side of the square images.
        process: "flow", or "diffusion" in its place.
        denoising_steps: steps K from noise to data.
        coupling: "joint": latents and actions are denoised together. "two_stage": latents first,
            then actions that see the finished ones.
        mask: what a latent sees: "own_step", "past_latents" or "block_causal" (see ``Layout``).
        projection: from a transition to the width of a latent token: "pca", fitted once on the
            data; "learned" with the policy, through the targets too; "detached": learned through
            the input alone.
        shared_noise: whether the views' latents start from the same noise, as in the released code.
        given_steps: up to so many first steps of a chunk may be given when acting, and are now and
            then in training: what is still being executed while the chunk is made (real-time
            chunking).
        small: size of the small backbone.
        pi0: size of pi0.
    """

    backbone: str = "small"
    horizon: int = 16
    image_size: int = 96
    process: str = "flow"
    denoising_steps: int = 5
    coupling: str = "joint"
    mask: str = "past_latents"
    projection: str = "pca"
    shared_noise: bool = False
    given_steps: int = 0
    small: SmallConfig = field(default_factory=SmallConfig)
    pi0: Pi0Config = field(default_factory=Pi0Config)

    def __post_init__(self) -> None:
        chosen = {
            "backbone": BACKBONES,
            "process": tuple(PROCESSES),
            "coupling": COUPLINGS,
            "mask": MASKS,
            "projection": PROJECTIONS,
        }
        for name, choices in chosen.items():
            if getattr(self, name) not in choices:
                raise UserError(
                    f"model.{name} is '{getattr(self, name)}': choose one of {', '.join(choices)}"
                )
        for name in ("horizon", "image_size", "denoising_steps"):
            if getattr(self, name) < 1:
                raise UserError(f"model.{name} is {getattr(self, name)}: it must be at least 1")
        if self.backbone == "small" and self.image_size % SMALL_STRIDE:
            raise UserError(
                f"model.image_size is {self.image_size}: the small backbone needs a multiple of {SMALL_STRIDE}"
            )
        if self.backbone == "pi0" and self.image_size % self.pi0.patch_size:
            raise UserError(
                f"model.image_size is {self.image_size}: pi0 needs a multiple of model.pi0.patch_size, {self.pi0.patch_size}"
            )
        if not 0 <= self.given_steps < self.horizon:
            raise UserError(
                f"model.given_steps is {self.given_steps}: choose 0 to {self.horizon - 1}, less than model.horizon"
            )
        if self.coupling == "two_stage" and self.mask == "block_causal":
            raise UserError(
                "model.mask is 'block_causal', where latents see actions: two stages need latents that do not"
            )


@dataclass
class PolicyConfig:
    """A policy: its network and what it sees, generates and commands.

    Args:
        model: the network.
        views: cameras, in order.
        latent_views: views whose transitions are generated beside the actions; none for a policy
            without latents.
        state_dim: width of the state.
        joint_names: names of the action's dimensions.
        relative_joints: those predicted as differences to the state at the chunk's start; the
            others are absolute.
        dt: s between two steps of a chunk.
        latent_width: numbers a latent is projected to.
        latent_shape: tokens and width of the encoder's own transition.
        latent_encoder: hash of the encoder's checkpoint.
    """

    model: ModelConfig
    views: list[str]
    latent_views: list[str]
    state_dim: int
    joint_names: list[str]
    relative_joints: list[str]
    dt: float
    latent_width: int = 0
    latent_shape: list[int] = field(default_factory=list)
    latent_encoder: str = ""

    def __post_init__(self) -> None:
        unknown = [name for name in self.relative_joints if name not in self.joint_names]
        if unknown:
            raise UserError(
                f"relative_joints names {', '.join(unknown)}, the data's actions are {', '.join(self.joint_names)}"
            )
        if self.relative_joints and self.state_dim < len(self.joint_names):
            raise UserError(
                f"relative joints need a state that begins with the {len(self.joint_names)} joints, it has {self.state_dim} numbers"
            )
        for view in self.latent_views:
            if view not in self.views:
                raise UserError(
                    f"latents of view '{view}' are asked for, the policy sees {', '.join(self.views)}"
                )

    def relative(self) -> np.ndarray:
        """(A,) bool: which action dimensions are relative to the state."""
        return np.array([name in self.relative_joints for name in self.joint_names])
