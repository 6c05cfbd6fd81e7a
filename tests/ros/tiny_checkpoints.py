"""Checkpoints with random weights, small enough for tests."""

from pathlib import Path

import numpy as np
import torch

from alam_core.latent_action import TransitionConfig, TransitionModel
from alam_core.policy.config import ModelConfig, PolicyConfig
from alam_core.policy.joint import JointPolicy
from alam_core.policy.normalization import LatentProjection, PolicyStats
from alam_core.policy.small.config import SmallConfig
from alam_core.robots.piper import JOINT_NAMES
from alam_core.types import VIEWS

SIZE = 32  # px
HORIZON = 16
TOKENS, DIM = 3, 4


def save_tiny_transition(folder: Path) -> TransitionModel:
    """A transition model with TOKENS tokens of DIM numbers."""
    torch.manual_seed(0)
    config = TransitionConfig(
        image_size=SIZE,
        width=16,
        heads=2,
        encoder_layers=1,
        decoder_layers=1,
        latent_tokens=TOKENS,
        latent_dim=DIM,
    )
    model = TransitionModel(config).eval()
    model.save_pretrained(folder)
    return model


def save_tiny_policy(
    folder: Path, turn: float = 0.0, offset: float = 0.0, given_steps: int = 0
) -> JointPolicy:
    """A policy with latents of both views. Its actions stay within a few mrad of the observed
    state, except that joint1 starts ``offset`` rad away from it and turns at ``turn`` rad/s.
    given_steps: how many first steps it may be conditioned on; it returns these unchanged.
    """
    torch.manual_seed(0)
    width = 5
    small = SmallConfig(
        width=32, layers=1, heads=2, mlp_width=32, channels=[8, 8, 16, 16], keypoints=4
    )
    model = ModelConfig(
        horizon=HORIZON, image_size=SIZE, denoising_steps=2, given_steps=given_steps, small=small
    )
    config = PolicyConfig(
        model=model,
        views=list(VIEWS),
        latent_views=list(VIEWS),
        state_dim=7,
        joint_names=list(JOINT_NAMES),
        relative_joints=list(JOINT_NAMES),
        dt=0.1,
        latent_width=width,
        latent_shape=[TOKENS, DIM],
        latent_encoder="random",
    )
    components = np.eye(width, TOKENS * DIM, dtype=np.float32)
    projection = LatentProjection(
        np.zeros(TOKENS * DIM, np.float32), components, np.ones(width, np.float32), 1.0
    )
    drift = np.zeros((HORIZON, 7), np.float32)
    drift[:, 0] = offset + turn * 0.1 * np.arange(1, HORIZON + 1)
    stats = PolicyStats(
        np.zeros(7, np.float32),
        np.ones(7, np.float32),
        drift,
        np.full((HORIZON, 7), 0.001, np.float32),
        {view: projection for view in VIEWS},
    )
    policy = JointPolicy(config, stats).eval()
    policy.save_pretrained(folder)
    return policy


def save_tiny_world_policy(folder: Path, dt: float, state: int, action: int) -> JointPolicy:
    """A policy without latents for a world without joints; ``state``, ``action``: how many numbers
    they have. The actions depend on the images and on the noise.
    """
    torch.manual_seed(0)
    small = SmallConfig(
        width=32, layers=1, heads=2, mlp_width=32, channels=[8, 8, 16, 16], keypoints=4
    )
    zeros, ones = np.zeros((8, action), np.float32), np.ones((8, action), np.float32)
    config = PolicyConfig(
        model=ModelConfig(horizon=8, image_size=SIZE, denoising_steps=2, small=small),
        views=list(VIEWS),
        latent_views=[],
        state_dim=state,
        state_names=[f"state_{i}" for i in range(state)],
        joint_names=[f"action_{i}" for i in range(action)],
        relative_joints=[],
        dt=dt,
        latent_width=action,
        latent_shape=[],
        latent_encoder="",
    )
    mean, std = np.zeros(state, np.float32), np.ones(state, np.float32)
    policy = JointPolicy(config, PolicyStats(mean, std, zeros, ones, {})).eval()
    policy.save_pretrained(folder)
    return policy
