"""Tiny policies for tests."""

import numpy as np
import pi0_fixtures as published
import torch

from alam_core.policy.config import ModelConfig, PolicyConfig
from alam_core.policy.joint import JointPolicy
from alam_core.policy.normalization import LatentProjection, PolicyStats
from alam_core.policy.pi0.config import Pi0Config
from alam_core.policy.pi0.text import Pi0Tokenizer
from alam_core.policy.small.config import SmallConfig
from alam_core.robots.piper import JOINT_NAMES
from alam_core.types import VIEWS, Observation

HORIZON = 4
LATENT = 6  # numbers of the encoder's transition, as 2 tokens of 3


def tiny_backbone() -> SmallConfig:
    return SmallConfig(
        width=32, layers=2, heads=2, mlp_width=32, channels=[8, 8, 16, 16], keypoints=4
    )


def tiny_policy(
    latent_views=VIEWS, relative=JOINT_NAMES[:6], seed=0, noise=0.1, tokenizer=None, **model
) -> JointPolicy:
    """A random policy; ``noise`` is added to all weights, so that no zero initialisation hides a
    path. ``model``: of ``ModelConfig``.
    """
    rng = np.random.default_rng(seed)
    shape = {
        "horizon": HORIZON,
        "image_size": 32,
        "denoising_steps": 3,
        "small": tiny_backbone(),
    } | model
    horizon = shape["horizon"]

    def normal(*size):
        return rng.normal(size=size).astype(np.float32)

    def projection():
        count = (
            3 if shape.get("projection", "pca") == "pca" else 5
        )  # a learned one goes from 5 to 3
        components = np.linalg.qr(rng.normal(size=(LATENT, count)))[0].T.astype(np.float32)
        return LatentProjection(
            normal(LATENT), components, np.array([2.0, 1.0, 0.5, 0.5, 0.5][:count], np.float32), 0.9
        )

    stats = PolicyStats(
        normal(7), np.exp(normal(7)), 0.1 * normal(horizon, 7), np.exp(0.1 * normal(horizon, 7))
    )
    stats.latents = {view: projection() for view in latent_views}
    config = PolicyConfig(
        ModelConfig(**shape),
        ["third_person", "wrist"],
        list(latent_views),
        7,
        list(JOINT_NAMES),
        list(relative),
        0.1,
        3 if latent_views else 0,
        [2, 3] if latent_views else [],
        "0123456789abcdef" if latent_views else "",
    )
    torch.manual_seed(seed)
    policy = JointPolicy(config, stats, tokenizer)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(noise * torch.randn_like(parameter))
    return policy.eval()


def pi0_policy(**changes) -> JointPolicy:
    """``tiny_policy`` on a tiny pi0, whose words are those of ``pi0_fixtures``."""
    size = {**published.SIZE, "max_words": 12}
    tokenizer = Pi0Tokenizer(published.make_tokenizer(), 12)
    return tiny_policy(
        **{
            "backbone": "pi0",
            "image_size": published.IMAGE,
            "pi0": Pi0Config(**size),
            "tokenizer": tokenizer,
            **changes,
        }
    )


def random_observation(seed=0, size=32, instruction="put the red cube on the plate") -> Observation:
    rng = np.random.default_rng(seed)
    images = {
        view: rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
        for view in ("third_person", "wrist")
    }
    return Observation(images, rng.normal(size=7).astype(np.float32), instruction, 12.5)


def random_batch(policy: JointPolicy, count=3, seed=0, draws=1) -> dict:
    """Arguments of ``JointPolicy.forward``."""
    generator = torch.Generator().manual_seed(seed)
    size = policy.config.model.image_size
    return {
        "images": {
            view: torch.randint(
                0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator
            )
            for view in policy.config.views
        },
        "state": torch.randn(count, 7, generator=generator),
        "words": policy.tokenizer(
            [
                f"put the {colour} cube down"
                for colour in ("red", "green", "blue", "yellow", "red")[:count]
            ]
        ),
        "targets": {
            name: torch.randn(count, policy.layout.horizon, width, generator=generator)
            for name, width in policy.target_widths().items()
        },
        "drawn": policy.draw(count, draws, generator),
    }
