"""A policy labels video itself: with flow times of their own for latents and actions, it infers the
actions that lead to the latents of the video, as an inverse dynamics model does.
"""

from pathlib import Path

import numpy as np
import torch
from rich.progress import Progress

from alam_core.errors import UserError
from alam_core.policy.config import PolicyConfig
from alam_core.policy.joint import JointPolicy
from alam_core.policy.samples import PolicySamples

BATCH = 256  # frames that are labelled at a time


def read_labeller(folder: str | Path, config: PolicyConfig) -> JointPolicy:
    """The policy in ``folder``. Raises UserError unless it infers actions and has the views,
    latents and actions of the policy ``config``.
    """
    policy = JointPolicy.from_pretrained(folder)
    policy.check_infers_actions()
    own = policy.config
    for what, found, wanted in (
        ("views", own.views, config.views),
        ("latents of", own.latent_views, config.latent_views),
        ("encoder", own.latent_encoder, config.latent_encoder),
        ("latent width", own.latent_width, config.latent_width),
        ("actions", own.joint_names, config.joint_names),
        ("relative joints", own.relative_joints, config.relative_joints),
        ("horizon", own.model.horizon, config.model.horizon),
        ("image size", own.model.image_size, config.model.image_size),
    ):
        if found != wanted:
            raise UserError(
                f"self_label: '{folder}' has the {what} {found}, but the policy to train has "
                f"{wanted}: train both with the same settings"
            )
    if not own.model.stateless:
        raise UserError(f"self_label: '{folder}' was not trained on video: it needs the state")
    return policy


@torch.inference_mode()
def inferred_actions(policy: JointPolicy, samples: PolicySamples) -> np.ndarray:
    """The chunk of actions that ``policy`` infers at each frame of a source of video, as targets of
    ``samples.stats``: float32 (F, H, A). Episodes that are left out have zeros.
    """
    count = int(samples.lengths.sum())
    horizon, width = samples.stats.action_mean.shape
    out = np.zeros((count, horizon, width), np.float32)
    rows = samples.rows_of(samples.included(np.arange(len(samples.lengths))))
    device = next(policy.parameters()).device
    generator = torch.Generator(device).manual_seed(0)
    with Progress(transient=True) as progress:
        task = progress.add_task("the policy labels the video", total=len(rows))
        for first in range(0, len(rows), BATCH):
            picked = rows[first : first + BATCH]
            batch = samples.batch(picked)
            latents = {
                view: batch["targets"][view].to(device) for view in policy.config.latent_views
            }
            actions, _ = policy.sample(
                {view: images.to(device) for view, images in batch["images"].items()},
                batch["state"].to(device),
                batch["words"].to(device),
                generator,
                known=torch.zeros(len(picked), dtype=torch.bool, device=device),
                latents=latents,
            )
            # The state of video is 0 here: what is relative to it stays so.
            raw = actions.float().cpu().numpy()
            out[picked] = (raw - samples.stats.action_mean) / samples.stats.action_std
            progress.advance(task, len(picked))
    return out
