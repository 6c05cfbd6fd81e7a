"""A policy learns to localise the object that the instruction names, precisely."""

import numpy as np
import pytest
import torch

from alam_core.policy.config import ModelConfig, PolicyConfig
from alam_core.policy.joint import JointPolicy
from alam_core.policy.normalization import PolicyStats
from alam_core.policy.small.config import SmallConfig

COLOURS = {"red": (210, 40, 40), "green": (40, 170, 60), "blue": (50, 70, 210)}
SIZE, SPREAD = 32, 8.0  # px


def scenes(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    """Pictures of three blobs on a random ground, the position (column, row) of one of them in px,
    and an instruction naming it.
    """
    rng = np.random.default_rng(seed)
    grid = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)[::-1]
    images, places, texts = (
        np.empty((count, SIZE, SIZE, 3), np.float32),
        np.empty((count, 2), np.float32),
        [],
    )
    for i in range(count):
        images[i] = rng.uniform(90, 180)
        centres = rng.permutation([(x, y) for x in (7, 16, 25) for y in (7, 16, 25)])[
            :3
        ] + rng.uniform(-2, 2, (3, 2))
        for name, centre in zip(COLOURS, centres, strict=True):
            cover = np.clip(4.0 - np.hypot(*(grid - centre[:, None, None])), 0, 1)[..., None]
            images[i] = images[i] * (1 - cover) + cover * (
                np.array(COLOURS[name]) * rng.uniform(0.85, 1.15)
            )
        chosen = rng.integers(3)
        places[i] = centres[chosen]
        texts.append(f"{rng.choice(['touch', 'go to', 'find'])} the {list(COLOURS)[chosen]} blob")
    pictures = np.clip(images + rng.normal(0, 4, images.shape), 0, 255).astype(np.uint8)
    return torch.from_numpy(pictures).permute(0, 3, 1, 2), torch.from_numpy(places), texts


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_it_points_at_the_named_blob_within_a_pixel():
    torch.manual_seed(0)
    horizon = 2
    stats = PolicyStats(
        np.zeros(2, np.float32),
        np.ones(2, np.float32),
        np.full((horizon, 2), 16, np.float32),
        np.full((horizon, 2), SPREAD, np.float32),
    )
    small = SmallConfig(width=64, layers=2, mlp_width=128, channels=[16, 32, 64, 64], keypoints=8)
    model = ModelConfig(horizon=horizon, image_size=SIZE, small=small)
    policy = JointPolicy(PolicyConfig(model, ["camera"], [], 2, ["x", "y"], [], 0.1), stats)
    images, places, texts = scenes(3000, 0)
    words = policy.tokenizer(texts)
    targets = ((places - 16) / SPREAD)[:, None].expand(-1, horizon, -1)
    steps = 400
    optimizer = torch.optim.AdamW(policy.parameters(), 2e-3, weight_decay=1e-4, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, steps, pct_start=0.1)
    for _ in range(steps):
        rows = torch.randint(0, len(images), (64,))
        loss = policy(
            {"camera": images[rows]},
            torch.zeros(64, 2),
            words[rows],
            {"action": targets[rows]},
            policy.draw(64, 2),
        )["total"]
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()
        schedule.step()

    unseen, truth, asked = scenes(200, 1)
    actions, _ = policy.sample(
        {"camera": unseen},
        torch.zeros(200, 2),
        policy.tokenizer(asked),
        torch.Generator().manual_seed(0),
    )
    errors = (actions[:, 0] - truth).norm(dim=-1)
    print(
        f"median error {errors.median():.2f} px, "
        f"off by more than 4 px {(errors > 4).float().mean():.1%}"
    )
    assert errors.median() < 1.0
    assert (
        errors > 4
    ).float().mean() < 0.05  # the blobs are 9 px apart: more would be the wrong one
