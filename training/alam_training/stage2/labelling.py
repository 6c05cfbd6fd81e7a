"""Labels video with an inverse dynamics model that is trained on a few demonstrations.

T: frames of an episode, H: steps between the two frames that the model sees, A: action width,
state_dim: state width.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from alam_core.data.lerobot import Columns, layout
from alam_core.errors import UserError
from alam_core.policy.inverse_dynamics import InverseDynamics, InverseDynamicsConfig
from alam_core.policy.normalization import PolicyStats, chunk_rows
from alam_core.policy.samples import AugmentConfig, PolicySamples, augment_images
from alam_training.loop.config import LoopConfig
from alam_training.loop.seeds import step_rng
from alam_training.stage2.config import VideoConfig, video_sources

BATCH = 64  # frames that are labelled at a time


@dataclass
class LabelConfig:
    """What to label, and from what to learn it.

    Args:
        data: folder of a LeRobot data set with demonstrations.
        labelled: use the labels of only this many episodes of each instruction; 0 uses all.
        video: folder of video to label, or a list of such sources, as in training/finetune.py. The
            labelled episodes of ``data`` are not labelled again.
        output: folder of the new data set: the demonstrations, and the video with inferred states
            and actions.
        run: folder for logs and the training state.
        state: feature of ``data`` that holds the state.
        action: feature that holds the action.
        images: view -> name of the video feature that holds it; empty: every video feature.
        exclude: numbers of episodes of ``data`` to leave out.
        max_broken: largest fraction of the episodes of a source that may be broken.
        batch: samples per training step.
        augment: random changes of the images in training. Shifts are off by default, as they hide
            where the robot is.
        model: size of the inverse dynamics model.
        loop: length, optimiser, saving and logging.
    """

    data: str = ""
    labelled: int = 0
    video: str | list[VideoConfig] = ""
    output: str = "data/labelled"
    run: str = "runs/label"
    state: str = layout.STATE
    action: str = layout.ACTION
    images: dict[str, str] = field(default_factory=dict)
    exclude: list[int] = field(default_factory=list)
    max_broken: float = 0.05
    batch: int = 64
    augment: AugmentConfig = field(default_factory=lambda: AugmentConfig(shift=0))
    model: InverseDynamicsConfig = field(default_factory=InverseDynamicsConfig)
    loop: LoopConfig = field(default_factory=lambda: LoopConfig(steps=2000))

    def __post_init__(self) -> None:
        if self.batch < 1 or self.labelled < 0 or not 0 <= self.max_broken <= 1:
            raise UserError(
                "batch must be at least 1, labelled not negative, max_broken between 0 and 1"
            )

    @property
    def videos(self) -> list[VideoConfig]:
        """The sources of video, whether one or several are given."""
        return video_sources(self.video)

    @property
    def columns(self) -> Columns:
        """The features of the demonstrations that are read."""
        return Columns(self.state, self.action, self.images)


class LabelBatches:
    """Training batches of an inverse dynamics model: a function of seed and step.

    data: the demonstrations; ``rows``: those to learn from.
    """

    def __init__(self, config: LabelConfig, data: PolicySamples, rows: np.ndarray) -> None:
        self.config, self.data, self.rows = config, data, rows

    def __call__(self, step: int, rank: int, ranks: int) -> dict:
        """This rank's share of the batch: "start" and "end", view -> images, and the normalised
        "actions" (B, H, A) and "state" (B, state_dim).
        """
        rng = step_rng(self.config.loop.seed, step)
        rows = self.rows[rng.integers(len(self.rows), size=self.config.batch)][rank::ranks]
        drawn = self.data.draw_augmentation(self.config.batch, self.config.augment, rng)
        # Both frames of a pair are changed in the same way.
        changes = {name: values[rank::ranks] for name, values in drawn.items()}
        ends = np.minimum(rows + self.config.model.horizon, self.data.last[rows])
        return {
            "start": self._images(rows, changes["images"]),
            "end": self._images(ends, changes["images"]),
            "actions": torch.from_numpy(normal_actions(self.data, rows)),
            "state": torch.from_numpy(normal_states(self.data, rows)),
        }

    def _images(self, rows: np.ndarray, drawn: np.ndarray) -> dict[str, Tensor]:
        images = {}
        for number, (view, store) in enumerate(self.data.frames.items()):
            changed = augment_images(np.stack([store.array[row] for row in rows]), drawn[:, number])
            images[view] = torch.from_numpy(changed).permute(0, 3, 1, 2)
        return images


def normal_actions(data: PolicySamples, rows: np.ndarray) -> np.ndarray:
    """The actions from each of ``rows`` (B,) on, divided by their scale: float32 (B, H, A)."""
    chunk = chunk_rows(rows, data.horizon, data.last[rows])
    stats = data.stats
    return ((data.actions[chunk] - stats.action_mean[0]) / stats.action_std[0]).astype(np.float32)


def normal_states(data: PolicySamples, rows: np.ndarray) -> np.ndarray:
    """The states at ``rows`` (B,), divided by their scale: float32 (B, state_dim)."""
    return ((data.states[rows] - data.stats.state_mean) / data.stats.state_std).astype(np.float32)


def losses(model: nn.Module, batch: dict) -> dict[str, Tensor]:
    """L1 errors of actions and states, and their sum."""
    actions, state = model(batch["start"], batch["end"])
    terms = {
        "actions": (actions.float() - batch["actions"]).abs().mean(),
        "state": (state.float() - batch["state"]).abs().mean(),
    }
    return {"total": terms["actions"] + terms["state"], **terms}


@torch.inference_mode()
def infer(
    model: InverseDynamics, images: Mapping[str, np.ndarray], stats: PolicyStats
) -> tuple[np.ndarray, np.ndarray]:
    """States (T, state_dim) and actions (T, A) of an episode, float32.

    images: view -> uint8 (T, S, S, 3), at the rate of the demonstrations. Every action is the mean
    of the predictions of all pairs of frames that span it.
    """
    length, horizon = len(next(iter(images.values()))), model.config.horizon
    device = next(model.parameters()).device
    sums = np.zeros((length, model.shape[1]))
    counts = np.zeros((length, 1))
    states = np.empty((length, model.state_dim), np.float32)
    for first in range(0, length, BATCH):
        rows = np.arange(first, min(first + BATCH, length))
        ends = np.minimum(rows + horizon, length - 1)
        start, end = (
            {
                view: torch.from_numpy(frames[picked]).permute(0, 3, 1, 2).to(device)
                for view, frames in images.items()
            }
            for picked in (rows, ends)
        )
        actions, state = model(start, end)
        states[rows] = state.float().cpu().numpy() * stats.state_std + stats.state_mean
        spread = np.minimum(rows[:, None] + np.arange(horizon), length - 1)
        np.add.at(sums, spread, actions.float().cpu().numpy())
        np.add.at(counts, spread, 1.0)
    actions = sums / counts * stats.action_std[0] + stats.action_mean[0]
    return states, actions.astype(np.float32)


def held_out_errors(
    model: InverseDynamics, data: PolicySamples, episodes: Sequence[int]
) -> dict[str, float]:
    """R^2 of inferred actions and states on episodes with labels, averaged over the dimensions;
    empty without episodes.
    """
    if not len(episodes):
        return {}
    found = []
    for e in episodes:
        rows = np.arange(data.starts[e], data.starts[e] + data.lengths[e])
        images = {view: store.array[rows] for view, store in data.frames.items()}
        found.append((*infer(model, images, data.stats), data.states[rows], data.actions[rows]))
    states, actions, true_states, true_actions = (
        np.concatenate(parts) for parts in zip(*found, strict=True)
    )
    return {"actions_r2": _r2(actions, true_actions), "state_r2": _r2(states, true_states)}


def _r2(prediction: np.ndarray, truth: np.ndarray) -> float:
    error = np.square(prediction - truth).sum(0)
    return float(np.mean(1.0 - error / (np.square(truth - truth.mean(0)).sum(0) + 1e-12)))
