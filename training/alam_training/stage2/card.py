"""The card (README.md) of a policy."""

from pathlib import Path

from alam_core.cards import model_card
from alam_core.command_line import command_line
from alam_core.policy.config import PolicyConfig
from alam_training.stage2.config import FinetuneConfig


def policy_card(
    config: FinetuneConfig,
    policy: PolicyConfig,
    metrics: dict[str, float],
    step: int,
    episodes: int,
) -> str:
    """What the policy is, what it was trained on, by which command, and its held-out ``metrics``.

    episodes: how many it was trained on.
    """
    latents = (
        f"the transitions of {', '.join(policy.latent_views)} as {Path(config.encoder)} encodes "
        "them"
        if policy.latent_views
        else "no latents"
    )
    how = {"flow": "flow matching", "diffusion": "diffusion"}[policy.model.process]
    if policy.latent_views:
        how = f"{policy.model.coupling.replace('_', '-')} {how}"
    lines = "\n".join(f"| {name} | {value:.4g} |" for name, value in metrics.items())
    dataset = Path(config.data).name
    body = f"""Observes {", ".join(policy.views)} at {policy.model.image_size} px, the state and \
an instruction; generates chunks of
{policy.model.horizon} steps of {policy.dt:g} s by {how}: actions \
({", ".join(policy.joint_names)}) together with
{latents}.

- Data: `{dataset}`, {episodes} training episodes.
- Steps: {step} of {config.loop.steps}, {config.batch} samples each, {config.draws} draws of time \
and noise per sample.
- Command: `{command_line()}`

Held-out episodes, mean absolute error of sampled set-points, in the units of the actions (rad and \
m for an arm):

| metric | value |
|---|---|
{lines}
"""
    return model_card(
        "Policy",
        body,
        tags=["alam", "robotics", "imitation-learning"],
        dataset=dataset,
        metrics=metrics,
    )
