"""Training samples of a policy: frames, states, instructions, action chunks and latent chunks,
ready in memory.

Letters: F frames of the data set, B batch, S image size in px, H chunk length, A action width, P
projected latent width.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from alam_core.data.frames import FrameStore
from alam_core.errors import UserError
from alam_core.policy.normalization import PolicyStats, relative_targets
from alam_core.policy.sequence import ACTION


@dataclass
class AugmentConfig:
    """Random changes of a sample, drawn anew for each sample and view.

    Args:
        shift: px, the largest shift of the picture either way; the border is repeated.
        brightness: largest relative change of brightness.
        contrast: largest relative change of contrast, around the picture's mean.
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
                "augment.shift, brightness, contrast and state_noise must not be negative; 0 leaves one out"
            )


class PolicyData:
    """All samples of some episodes; sample t of an episode is what was seen at t and the chunk that
    begins there.

    frames: view -> decoded frames. states (F, S), actions (F, A): of all frames one after another.
    words (E, .): each episode's instruction, as a tokenizer gives it. latents: view -> projected
    transitions (F, P).
    """

    def __init__(
        self,
        frames: Mapping[str, FrameStore],
        states: np.ndarray,
        actions: np.ndarray,
        words: Tensor,
        latents: Mapping[str, np.ndarray],
        stats: PolicyStats,
        relative: np.ndarray,
    ) -> None:
        self.frames, self.states, self.actions, self.words, self.latents = (
            frames,
            states,
            actions,
            words,
            latents,
        )
        self.stats, self.relative = stats, relative
        store = next(iter(frames.values()))
        self.starts, self.lengths = store.starts, store.lengths
        self.episode_of = np.repeat(np.arange(len(self.lengths)), self.lengths)  # (F,)
        self.last = np.repeat(
            self.starts + self.lengths - 1, self.lengths
        )  # (F,) last frame of each frame's episode

    def rows_of(self, episodes: np.ndarray) -> np.ndarray:
        """Numbers of all frames of the given episodes."""
        return np.flatnonzero(np.isin(self.episode_of, episodes))

    def batch(self, rows: np.ndarray, drawn: Mapping[str, np.ndarray] | None = None) -> dict:
        """Samples ``rows`` (B,): a dict of images view -> (B, 3, S, S) uint8, state (B, S), words
        (B, W), targets modality -> (B, H, .).

        Past an episode's end its last action is repeated and nothing moves. drawn: of
        ``draw_augmentation``, for these rows; none leaves them as they are.
        """
        horizon = len(self.stats.action_mean)
        chunk = np.minimum(rows[:, None] + np.arange(horizon), self.last[rows][:, None])  # (B, H)
        state = self.states[rows]
        actions = relative_targets(self.actions[chunk], state, self.relative)
        targets = {ACTION: (actions - self.stats.action_mean) / self.stats.action_std}
        for view, latents in self.latents.items():
            # A chunk that reaches past the end repeats the transition of the last frame to itself.
            targets[view] = self.stats.latents[view].targets(latents[chunk])
        images = {
            view: store.array[np.sort(rows)][np.argsort(np.argsort(rows))]
            for view, store in self.frames.items()
        }
        if drawn is not None:
            images = {
                view: augment_images(pictures, drawn["pictures"][:, number])
                for number, (view, pictures) in enumerate(images.items())
            }
            state = state + drawn["state"] * self.stats.state_std
        return {
            "images": {
                view: torch.from_numpy(pictures).permute(0, 3, 1, 2)
                for view, pictures in images.items()
            },
            "state": torch.from_numpy(state),
            "words": self.words[torch.from_numpy(self.episode_of[rows])],
            "targets": {
                name: torch.from_numpy(values.astype(np.float32))
                for name, values in targets.items()
            },
        }

    def draw_augmentation(
        self, count: int, config: AugmentConfig, rng: np.random.Generator
    ) -> dict[str, np.ndarray]:
        """What chance decides for ``count`` samples: "pictures" (B, V, 4), each shift in px (down,
        right) and the factors of brightness and contrast; "state" (B, S), noise in standard
        deviations.
        """
        views = len(self.frames)
        shifts = rng.integers(-config.shift, config.shift + 1, (count, views, 2)).astype(np.float64)
        brightness = 1.0 + rng.uniform(-config.brightness, config.brightness, (count, views, 1))
        contrast = 1.0 + rng.uniform(-config.contrast, config.contrast, (count, views, 1))
        noise = rng.normal(size=(count, self.states.shape[1])) * config.state_noise
        return {
            "pictures": np.concatenate([shifts, brightness, contrast], -1),
            "state": noise.astype(np.float32),
        }


def augment_images(images: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Shift and recolour each picture of (B, S, S, 3) uint8 by its row of (B, 4): shift down and
    right in px, brightness, contrast.
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
