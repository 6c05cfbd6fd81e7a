"""The joint policy: context once, then latent transitions and actions denoised together (Sec. 3.3).

Letters: B batch, G draws of (tau, noise) per encoded image, S image size in px, W words, H chunk length, A action width,
P width of a projected latent, d width of the expert.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alam_core.checkpoints import load_tensors, read_checkpoint, save_checkpoint
from alam_core.config import from_dict, to_dict
from alam_core.data.normalization import PolicyStats
from alam_core.errors import UserError
from alam_core.policy import flow
from alam_core.policy.backbone import Backbone, SmallBackbone
from alam_core.policy.expert import ActionExpert, KeyValue
from alam_core.policy.sequence import ACTION, Layout
from alam_core.policy.text import WordTokenizer


@dataclass
class ModelConfig:
    """The size and shape of a policy network.

    Args:
        horizon: steps H of a chunk.
        image_size: px, side of the square images.
        width: of all transformer tokens.
        layers: of the action expert.
        heads: of every attention.
        mlp_width: hidden width of the expert's MLPs.
        channels: of the four strided convolutions of a view's encoder.
        keypoints: soft-argmax keypoints a view, and as many again that follow the instruction.
        vocabulary: ids that words are hashed into.
        max_words: longest instruction.
        latents_see_past: whether the latents of a step see those of earlier steps.
        euler_steps: steps K from noise to data.
    """

    horizon: int = 16
    image_size: int = 96
    width: int = 128
    layers: int = 4
    heads: int = 4
    mlp_width: int = 256
    channels: list[int] = field(default_factory=lambda: [32, 64, 128, 128])
    keypoints: int = 16
    vocabulary: int = 2048
    max_words: int = 24
    latents_see_past: bool = True
    euler_steps: int = 5

    def __post_init__(self) -> None:
        for name in ("horizon", "width", "layers", "heads", "mlp_width", "keypoints", "max_words", "euler_steps"):
            if getattr(self, name) < 1:
                raise UserError(f"model.{name} is {getattr(self, name)}: it must be at least 1")
        if self.image_size < 16 or self.image_size % 16:
            raise UserError(f"model.image_size is {self.image_size}: it must be a multiple of 16, the stride of a view's encoder")
        if self.width % self.heads or self.width % 2:
            raise UserError(f"model.width is {self.width}: it must be even and a multiple of model.heads, which is {self.heads}")
        if len(self.channels) != 4 or min(self.channels) < 1:
            raise UserError(f"model.channels is {self.channels}: give four numbers, one for each convolution")


@dataclass
class PolicyConfig:
    """A policy: its network and what it sees, generates and commands.

    Args:
        model: the network.
        views: cameras, in order.
        latent_views: views whose transitions are generated beside the actions; none for a policy without latents.
        state_dim: width of the state.
        joint_names: names of the action's dimensions.
        relative_joints: those predicted as differences to the state at the chunk's start; the others are absolute.
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
            raise UserError(f"relative_joints names {', '.join(unknown)}, the data's actions are {', '.join(self.joint_names)}")
        if self.relative_joints and self.state_dim < len(self.joint_names):
            raise UserError(
                f"relative joints need a state that begins with the {len(self.joint_names)} joints, it has {self.state_dim} numbers"
            )
        for view in self.latent_views:
            if view not in self.views:
                raise UserError(f"latents of view '{view}' are asked for, the policy sees {', '.join(self.views)}")

    def relative(self) -> np.ndarray:
        """(A,) bool: which action dimensions are relative to the state."""
        return np.array([name in self.relative_joints for name in self.joint_names])


class JointPolicy(nn.Module):
    """p(latents, actions | images, state, instruction) by joint flow matching.

    ``forward`` is the training loss; ``sample`` acts. Weights are float32; training may autocast, acting does not.
    """

    state_mean: Tensor
    state_std: Tensor
    action_mean: Tensor
    action_std: Tensor
    relative: Tensor

    def __init__(self, config: PolicyConfig, stats: PolicyStats) -> None:
        super().__init__()
        _check(config, stats)
        model = config.model
        self.config, self.stats = config, stats
        self.layout = Layout(tuple(config.latent_views), model.horizon, model.latents_see_past)
        self.tokenizer = self.make_tokenizer(model)
        self.backbone: Backbone = build_backbone(config)
        self.expert = ActionExpert(
            model.width, model.layers, model.heads, model.mlp_width, self.backbone.width, self.layout.attention_mask()
        )
        widths = self.stream_widths()
        self.inputs = nn.ModuleDict({name: nn.Linear(width, model.width) for name, width in widths.items()})
        self.outputs = nn.ModuleDict({name: nn.Linear(model.width, width) for name, width in widths.items()})
        for head in self.outputs.values():
            nn.init.zeros_(head.weight)  # type: ignore[arg-type]
            nn.init.zeros_(head.bias)  # type: ignore[arg-type]
        self.position = nn.Parameter(0.5 * torch.randn(self.layout.length, model.width))
        for name in ("state_mean", "state_std", "action_mean", "action_std"):
            self.register_buffer(name, torch.from_numpy(getattr(stats, name)), persistent=False)
        self.register_buffer("relative", torch.from_numpy(config.relative()), persistent=False)

    @staticmethod
    def make_tokenizer(model: ModelConfig) -> WordTokenizer:
        """Instructions to word ids, as a policy of this shape reads them."""
        return WordTokenizer(model.vocabulary, model.max_words)

    def stream_widths(self) -> dict[str, int]:
        """Modality -> width of one of its tokens, in the order of the sequence."""
        return {name: len(self.config.joint_names) if name == ACTION else self.config.latent_width for name in self.layout.modalities}

    def encode(self, images: Mapping[str, Tensor], state: Tensor, words: Tensor) -> list[KeyValue]:
        """The context of observations, ready for any number of ``velocity`` calls. Arguments as in ``forward``."""
        scaled = {view: images[view].float() / 127.5 - 1.0 for view in self.config.views}
        normal = (state.float() - self.state_mean) / self.state_std
        return self.expert.context_keys(self.backbone(scaled, normal, words))

    def velocity(self, x: Mapping[str, Tensor], tau: Tensor, context: list[KeyValue]) -> flow.Streams:
        """v(x_tau | tau, c) of every modality: x (N, H, d_m), tau (N,), context of B observations, N a multiple of B."""
        tokens = self.layout.pack({name: self.inputs[name](x[name]) for name in self.layout.modalities}) + self.position
        streams = self.layout.unpack(self.expert(tokens, tau, context))
        return {name: self.outputs[name](stream) for name, stream in streams.items()}

    def forward(
        self,
        images: Mapping[str, Tensor],
        state: Tensor,
        words: Tensor,
        targets: Mapping[str, Tensor],
        draws: int = 1,
        weights: Mapping[str, float] | None = None,
    ) -> dict[str, Tensor]:
        """The losses of a batch (eq. 13, 14): ``"total"`` and one a modality.

        images: view -> (B, 3, S, S) uint8. state: (B, state_dim), raw. words: (B, W) ids. targets: "action" and latent views ->
        (B, H, A or P), normalised. draws: of (tau, noise) for each encoded sample. weights: modality -> lambda, 1 where not given.
        """
        context = self.encode(images, state, words)
        data = {name: targets[name].repeat_interleave(draws, dim=0) for name in self.layout.modalities}
        tau = flow.sample_time(len(state) * draws, device=state.device)
        noise = flow.sample_noise(data)
        predicted = self.velocity(flow.interpolate(data, noise, tau), tau, context)
        scale = {name: 1.0 for name in self.layout.modalities} | dict(weights or {})
        total, parts = flow.flow_loss(predicted, flow.velocity(data, noise), scale)
        return {"total": total, **parts}

    @torch.inference_mode()
    def sample(
        self,
        images: Mapping[str, Tensor],
        state: Tensor,
        words: Tensor,
        generator: torch.Generator | None = None,
        steps: int | None = None,
    ) -> tuple[Tensor, flow.Streams]:
        """Chunks for B observations (eq. 15): actions (B, H, A) in rad and m, and projected latents view -> (B, H, P).

        generator: of the initial noise. steps: Euler steps, the configured number if None.
        """
        context = self.encode(images, state, words)
        shapes = {name: state.new_zeros(len(state), self.layout.horizon, width) for name, width in self.stream_widths().items()}
        noise = flow.sample_noise(shapes, generator)
        streams = flow.integrate(
            lambda x, tau: self.velocity(x, torch.full((len(state),), tau, device=state.device), context),
            noise,
            steps or self.config.model.euler_steps,
        )
        return self.denormalise(streams.pop(ACTION), state), streams

    def denormalise(self, targets: Tensor, state: Tensor) -> Tensor:
        """Normalised targets (B, H, A) to set-points in rad and m, given the state (B, S) the chunk starts from."""
        width = targets.shape[-1]
        joints = F.pad(state[:, :width], (0, max(0, width - state.shape[-1])))  # a state may be narrower where nothing is relative
        origin = torch.where(self.relative, joints, torch.zeros_like(joints))
        return targets * self.action_std + self.action_mean + origin[:, None]

    def save_pretrained(self, folder: str | Path, card: str = "") -> Path:
        """Write the policy as a checkpoint folder (see ``alam_core.checkpoints``)."""
        return save_checkpoint(folder, self, {"kind": "policy", "policy": to_dict(self.config)}, self.stats.to_dict(), card)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> "JointPolicy":
        """Read a policy from its folder, in eval mode. Raises UserError naming what is missing, malformed or does not fit."""
        checkpoint = read_checkpoint(folder, "policy")
        source = f"'{folder}/config.json'"
        if "policy" not in checkpoint.config:
            raise UserError(f"{source} has no entry 'policy'; restore the file from where the checkpoint came")
        config = from_dict(PolicyConfig, checkpoint.config["policy"], source)
        policy = cls(config, PolicyStats.from_dict(checkpoint.stats, f"'{folder}/stats.json'"))
        load_tensors(policy, checkpoint.tensors, folder)
        return policy.eval()


def build_backbone(config: PolicyConfig) -> Any:
    """The backbone of a policy: see ``alam_core.policy.backbone.Backbone`` for what another one must offer."""
    model = config.model
    return SmallBackbone(
        config.views,
        model.image_size,
        config.state_dim,
        model.width,
        model.heads,
        model.channels,
        model.keypoints,
        model.vocabulary,
        model.max_words,
    )


def _check(config: PolicyConfig, stats: PolicyStats) -> None:
    for view in config.latent_views:
        if view not in stats.latents or stats.latents[view].components.shape[0] != config.latent_width:
            raise UserError(f"the normalisation has no projection of view '{view}' to {config.latent_width} numbers")
    expected = {"action": (config.model.horizon, len(config.joint_names)), "state": (config.state_dim,)}
    for name, shape in expected.items():
        found = getattr(stats, f"{name}_mean").shape
        if found != shape:
            raise UserError(f"the normalisation of the {name} has shape {found}, the policy needs {shape}")
