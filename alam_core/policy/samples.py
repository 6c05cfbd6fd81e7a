"""Training samples of a policy, in memory: images, state, instruction, action chunk, latent chunks.

Letters: F frames of the data set, E episodes, K instructions, V views, B batch, S image side in px,
H chunk length, A action width, P projected latent width, state_dim state width.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from alam_core.data.frames import FrameStore
from alam_core.errors import UserError
from alam_core.policy.normalization import PolicyStats, chunk_rows, relative_targets
from alam_core.policy.sequence import ACTION


@dataclass
class AugmentConfig:
    """Data augmentation, drawn independently for each sample and view.

    Args:
        shift: largest shift of the image in each direction, in px; the border is repeated.
        brightness: largest relative change of brightness.
        contrast: largest relative change of contrast, around the mean of the image.
        state_noise: noise on the state, in standard deviations of the data; the targets do not
            change.
    """

    shift: int = 3
    brightness: float = 0.15
    contrast: float = 0.15
    state_noise: float = 0.02

    def __post_init__(self) -> None:
        if min(self.shift, self.brightness, self.contrast, self.state_noise) < 0:
            raise UserError(
                "augment.shift, brightness, contrast and state_noise must not be negative; 0 "
                "switches one off"
            )


class PolicySamples:
    """The samples of a data set, one per frame: the observation at the frame, and the chunk that
    begins there.

    frames: view -> decoded frames; views of ``views`` without frames are black. states (F,
    state_dim), actions (F, A): of all frames, episode by episode; both None for video without
    labels. words (K, .): the tokenizer's output for each instruction. tasks (F,): the index in
    ``words`` of each frame's instruction. latents: view -> projected transitions over ``stride``
    frames, (F, P); those of ``stats.latents`` without an entry have no targets. relative: (A,)
    bool. left_out: episodes without samples. held_out: episodes to evaluate on. stride: frames per
    step of a chunk's latents.
    """

    def __init__(
        self,
        frames: Mapping[str, FrameStore],
        states: np.ndarray | None,
        actions: np.ndarray | None,
        words: Tensor,
        tasks: np.ndarray,
        latents: Mapping[str, np.ndarray],
        stats: PolicyStats,
        relative: np.ndarray,
        left_out: Collection[int] = (),
        held_out: Collection[int] = (),
        views: Sequence[str] = (),
        stride: int = 1,
    ) -> None:
        store = next(iter(frames.values()))
        self.starts, self.lengths, self.size = store.starts, store.lengths, store.size
        self.frames, self.views, self.stride = frames, list(views or frames), stride
        self._labelled = states is not None and actions is not None
        self.inferred: np.ndarray | None = None  # (F, H, A), targets of actions of video
        count, (horizon, width) = int(self.lengths.sum()), stats.action_mean.shape
        self.horizon = horizon
        self.states = (
            np.zeros((count, len(stats.state_mean)), np.float32) if states is None else states
        )
        self.actions = np.zeros((count, width), np.float32) if actions is None else actions
        self.words, self.tasks, self.latents = words, tasks, latents
        self.stats, self.relative = stats, relative
        self.left_out, self.held_out = sorted(left_out), sorted(held_out)
        self.episode_of = np.repeat(np.arange(len(self.lengths)), self.lengths)  # (F,)
        self.last = last_frames(self.lengths, tasks)

    @property
    def labelled(self) -> bool:
        """Whether the samples have targets of actions."""
        return self._labelled or self.inferred is not None

    def included(self, episodes: np.ndarray) -> np.ndarray:
        """The given episodes without those that are left out."""
        return np.setdiff1d(episodes, self.left_out)

    def rows_of(self, episodes: np.ndarray) -> np.ndarray:
        """Rows of all frames of the given episodes, int."""
        return np.flatnonzero(np.isin(self.episode_of, episodes))

    def batch(self, rows: np.ndarray, drawn: Mapping[str, np.ndarray] | None = None) -> dict:
        """The samples ``rows`` (B,): "images" view -> (B, 3, S, S) uint8, "state" (B, state_dim),
        "words" (B, .), "targets" modality -> (B, H, .), normalised; 0 where there is no target.

        Past the end of an episode, or of the part of it that follows one instruction, the last
        action and the last transition repeat. drawn: result of ``draw_augmentation`` for these
        rows, None for no augmentation.
        """
        chunk = chunk_rows(rows, self.horizon, self.last[rows])  # (B, H)
        state = self.states[rows]
        actions = relative_targets(self.actions[chunk], state, self.relative)
        targets = {ACTION: (actions - self.stats.action_mean) / self.stats.action_std}
        if self.inferred is not None:
            targets[ACTION] = self.inferred[rows]
        elif not self.labelled:
            targets[ACTION] = np.zeros_like(targets[ACTION])
        steps = chunk_rows(rows, self.horizon, self.last[rows], self.stride)
        for view, projection in self.stats.latents.items():
            # Past the end, the transition is that of the last frame to itself.
            targets[view] = (
                projection.targets(self.latents[view][steps])
                if view in self.latents
                else np.zeros((*steps.shape, len(projection.std)))
            )
        images = {view: self._images(view, rows) for view in self.views}
        if drawn is not None:
            images = {
                view: augment_images(rgb, drawn["images"][:, number])
                for number, (view, rgb) in enumerate(images.items())
            }
            state = state + drawn["state"] * self.stats.state_std
        return {
            "images": {
                view: torch.from_numpy(rgb).permute(0, 3, 1, 2) for view, rgb in images.items()
            },
            "state": torch.from_numpy(state),
            "words": self.words[torch.from_numpy(self.tasks[rows])],
            "targets": {
                name: torch.from_numpy(values.astype(np.float32))
                for name, values in targets.items()
            },
        }

    def _images(self, view: str, rows: np.ndarray) -> np.ndarray:
        if view not in self.frames:
            return np.zeros((len(rows), self.size, self.size, 3), np.uint8)
        return self.frames[view].array[np.sort(rows)][np.argsort(np.argsort(rows))]

    def draw_augmentation(
        self, count: int, config: AugmentConfig, rng: np.random.Generator
    ) -> dict[str, np.ndarray]:
        """Random numbers for ``count`` = B samples: "images" (B, V, 4), the shift down and right
        in px and the factors of brightness and contrast; "state" (B, state_dim), noise in standard
        deviations.
        """
        views = len(self.views)
        shifts = rng.integers(-config.shift, config.shift + 1, (count, views, 2)).astype(np.float64)
        brightness = 1.0 + rng.uniform(-config.brightness, config.brightness, (count, views, 1))
        contrast = 1.0 + rng.uniform(-config.contrast, config.contrast, (count, views, 1))
        noise = rng.normal(size=(count, self.states.shape[1])) * config.state_noise
        return {
            "images": np.concatenate([shifts, brightness, contrast], -1),
            "state": noise.astype(np.float32),
        }


def last_frames(lengths: np.ndarray, tasks: np.ndarray) -> np.ndarray:
    """For each frame, the last frame of its episode that follows the same instruction without a
    break: int (F,). lengths (E,): frames of each episode. tasks (F,): number of each frame's
    instruction.
    """
    ends = np.cumsum(lengths) - 1
    last = np.union1d(ends[lengths > 0], np.flatnonzero(np.diff(tasks)))
    return last[np.searchsorted(last, np.arange(len(tasks)))]


def augment_images(images: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Shift and recolour images (B, S, S, 3) uint8, each by its row of ``drawn`` (B, 4): shift down
    and right in px, brightness, contrast.
    """
    size, levels = images.shape[1], np.arange(256)
    out = np.empty_like(images)
    for i, (image, (down, right, brightness, contrast)) in enumerate(
        zip(images, drawn, strict=True)
    ):
        mean = image[::4, ::4].mean()
        table = np.clip(((levels - mean) * contrast + mean) * brightness + 0.5, 0, 255).astype(
            np.uint8
        )
        rows = np.clip(np.arange(size) + int(down), 0, size - 1)
        columns = np.clip(np.arange(size) + int(right), 0, size - 1)
        out[i] = table[image[rows][:, columns]]
    return out
