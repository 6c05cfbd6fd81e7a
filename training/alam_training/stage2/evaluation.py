"""Errors of a policy's sampled actions on held-out samples."""

import numpy as np
import torch
from torch import Tensor

from alam_core.policy.joint import JointPolicy
from alam_core.policy.samples import PolicySamples
from alam_core.policy.sequence import ACTION


def held_out_errors(
    policy: JointPolicy, data: PolicySamples, rows: np.ndarray, size: int
) -> dict[str, float]:
    """Mean absolute error of sampled actions on the held-out samples ``rows``, ``size`` at a time,
    in the actions' units; empty if there are none.

    "action_first": at the first step of a chunk. "action": over the chunk. "action_shuffled": over
    the chunk with another sample's instruction; the difference shows how much the policy depends on
    the instruction.
    """
    if not len(rows):
        return {}
    device = next(policy.parameters()).device
    words = data.batch(rows)["words"]
    own: list[Tensor] = []  # (N, H) in pieces
    other: list[Tensor] = []
    for first in range(0, len(rows), size):
        batch = data.batch(rows[first : first + size])
        images = {view: pictures.to(device) for view, pictures in batch["images"].items()}
        state = batch["state"].to(device)
        truth = policy.denormalise(batch["targets"][ACTION].to(device), state)
        for errors, instructions in ((own, words), (other, words.roll(len(words) // 2, 0))):
            noise = torch.Generator(device).manual_seed(first)
            actions, _ = policy.sample(
                images, state, instructions[first : first + size].to(device), noise
            )
            errors.append((actions - truth).abs().mean(2))
    steps = torch.cat(own).mean(0)
    return {
        "action_first": float(steps[0]),
        "action": float(steps.mean()),
        "action_shuffled": float(torch.cat(other).mean()),
    }
