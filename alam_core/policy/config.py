"""A policy's configuration: its network, how it generates chunks, what it sees and commands."""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from alam_core.errors import UserError
from alam_core.policy.generation import ProcessName
from alam_core.policy.pi0.config import Pi0Config
from alam_core.policy.sequence import Mask
from alam_core.policy.small.config import SmallConfig
from alam_core.registry import Registry

# A ``backbone.BackboneFactory`` for each name that ``ModelConfig.backbone`` takes.
BACKBONES: Registry[Any] = Registry(
    "backbone",
    "alam.backbones",
    modules=("alam_core.policy.small.factory", "alam_core.policy.pi0.factory"),
)


@dataclass
class ModelConfig:
    """The network of a policy and how it generates chunks.

    Args:
        backbone: "small", or "pi0": PaliGemma with an action expert.
        horizon: steps H of a chunk; at inference a shorter chunk may be requested.
        image_size: side of the square images, in px.
        process: "flow" for flow matching, or "diffusion".
        denoising_steps: steps K from noise to data.
        coupling: "joint": latents and actions are denoised together. "two_stage": first the
            latents, then the actions, conditioned on the finished latents.
        mask: what a latent attends to: "own_step", "past_latents" or "block_causal" (see
            ``Layout``).
        projection: from a transition to the width of a latent token. "pca": fitted once on the
            data. "learned": trained with the policy, through inputs and targets. "detached":
            trained through the input only.
        shared_noise: the latents of all views start from the same noise, as in the released code.
        times: "common": all modalities have the same flow time, as in the paper. "own": in training
            latents and actions each have a time of their own, so that the policy also knows actions
            given finished latents (an inverse dynamics model) and latents alone (a planner).
        stateless: the state may be unknown, as in video without robot data: a learned token then
            takes its place.
        given_steps: largest number of first actions that can be given at inference because they are
            executed while the chunk is computed (real-time chunking); in training, a random number
            of them is given.
        small: size of the small backbone.
        pi0: size of pi0.
    """

    backbone: str = "small"
    horizon: int = 16
    image_size: int = 96
    process: ProcessName = "flow"
    denoising_steps: int = 5
    coupling: Literal["joint", "two_stage"] = "joint"
    mask: Mask = "past_latents"
    projection: Literal["pca", "learned", "detached"] = "pca"
    shared_noise: bool = False
    times: Literal["common", "own"] = "common"
    stateless: bool = False
    given_steps: int = 0
    small: SmallConfig = field(default_factory=SmallConfig)
    pi0: Pi0Config = field(default_factory=Pi0Config)

    def __post_init__(self) -> None:
        for name in ("horizon", "image_size", "denoising_steps"):
            if getattr(self, name) < 1:
                raise UserError(f"model.{name} is {getattr(self, name)}: it must be at least 1")
        BACKBONES.get(self.backbone).check(self)
        if not 0 <= self.given_steps < self.horizon:
            raise UserError(
                f"model.given_steps is {self.given_steps}: choose 0 to {self.horizon - 1}, less "
                "than model.horizon"
            )
        if self.coupling == "two_stage" and self.times == "own":
            raise UserError(
                "model.times 'own' needs model.coupling 'joint': two stages have fixed times"
            )
        if self.coupling == "two_stage" and self.mask == "block_causal":
            raise UserError(
                "model.mask is 'block_causal', where latents see actions: two stages need latents "
                "that do not"
            )


@dataclass
class PolicyConfig:
    """A policy: its network and what it sees, generates and commands.

    Args:
        model: the network.
        views: cameras, in order.
        latent_views: views whose transitions are generated together with the actions; empty for a
            policy without latents.
        state_dim: width of the state.
        joint_names: names of the action's dimensions.
        relative_joints: joints that are predicted as differences to the state at the start of the
            chunk; the others are absolute.
        dt: time between two steps of a chunk, in s.
        latent_width: numbers that a transition is projected to.
        latent_shape: tokens of the encoder's transition, and numbers per token.
        latent_encoder: hash of the encoder's checkpoint.
        state_names: names of the state's columns; empty in checkpoints of older versions, whose
            state is taken in the robot's own order: for the Piper joint1 to joint6, gripper.
        instructions: those of the training data; empty in some checkpoints of older versions.
        latent_dt: time between two steps of a latent, in s; 0: dt.
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
    state_names: list[str] = field(default_factory=list)
    instructions: list[str] = field(default_factory=list)
    latent_dt: float = 0.0

    def __post_init__(self) -> None:
        unknown = [name for name in self.relative_joints if name not in self.joint_names]
        if unknown:
            raise UserError(
                f"relative_joints names {', '.join(unknown)}, but the data's actions are "
                f"{', '.join(self.joint_names)}"
            )
        if self.state_names and len(self.state_names) != self.state_dim:
            raise UserError(
                f"state_names has {len(self.state_names)} names, but the state has "
                f"{self.state_dim} numbers"
            )
        if self.relative_joints and self.state_dim < len(self.joint_names):
            raise UserError(
                f"relative joints need a state that begins with the {len(self.joint_names)} "
                f"joints, it has {self.state_dim} numbers"
            )
        for view in self.latent_views:
            if view not in self.views:
                raise UserError(
                    f"latents of view '{view}' are requested, but the policy sees "
                    f"{', '.join(self.views)}"
                )

    def relative(self) -> np.ndarray:
        """(A,) bool, True for action dimensions that are relative to the state."""
        return np.array([name in self.relative_joints for name in self.joint_names])
