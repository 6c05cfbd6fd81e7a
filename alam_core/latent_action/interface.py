"""The interface of a latent action method: ``TransitionEncoder``.

The latent cache, the probes, the pretraining loop, stage 2 and the ROS node use only this
interface. A method registers its class in ``TRANSITION_ENCODERS`` under the ``"kind"`` that its
checkpoints have in config.json.

Letters: B batch, K tokens of a transition, D numbers per token, S image side in px.
"""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Self

from torch import Tensor, nn

from alam_core.checkpoints import load_tensors, read_checkpoint, save_checkpoint
from alam_core.config import from_dict, to_dict
from alam_core.registry import Registry


class TransitionEncoder(nn.Module, ABC):
    """Encodes a pair of frames as a latent transition z and is trained without actions.

    Images are float in [0, 1], (B, 3, S, S). A subclass sets ``kind``, its name in
    ``TRANSITION_ENCODERS``, and ``config_type``, the dataclass of its configuration, and can be
    built from such a configuration alone. Calling the model computes ``losses``.
    """

    kind: ClassVar[str]
    config_type: ClassVar[type]
    config: Any

    @property
    @abstractmethod
    def image_size(self) -> int:
        """S, side of the square images that the model takes, in px."""

    @property
    @abstractmethod
    def latent_shape(self) -> tuple[int, int]:
        """(K, D): tokens of a transition, and numbers per token."""

    @property
    def latent_size(self) -> int:
        """Numbers in a transition: K * D."""
        tokens, width = self.latent_shape
        return tokens * width

    @property
    @abstractmethod
    def additive(self) -> bool:
        """Whether transitions of adjacent spans add up, z_ac = z_ab + z_bc (eq. 2): exactly, by
        construction, or approximately, by a training loss.
        """

    @property
    def codebook_size(self) -> int:
        """Entries of the codebook, 0 for a method without one."""
        return 0

    @abstractmethod
    def encode(self, source: Tensor, target: Tensor) -> Tensor:
        """Transition from ``source`` to ``target``, (B, 3, S, S) each -> continuous z (B, K, D),
        float32.
        """

    @abstractmethod
    def decode(self, source: Tensor, z: Tensor) -> Tensor:
        """The frame that z (B, K, D) leads to from ``source`` (B, 3, S, S) -> (B, 3, S, S) in
        [0, 1].
        """

    def quantize(self, z: Tensor) -> tuple[Tensor, Tensor | None]:
        """z (B, K, D) -> its codebook entries (B, K, D) and their indices (B, K).

        Returns z itself and None if the codebook is not in use, or if there is none.
        """
        return z, None

    @abstractmethod
    def losses(self, a: Tensor, b: Tensor, c: Tensor) -> dict[str, Tensor]:
        """Training losses on frame triplets a < b < c (eq. 3), (B, 3, S, S) each, as scalars.

        ``"total"`` is minimised; the others are its terms.
        """

    def forward(self, a: Tensor, b: Tensor, c: Tensor) -> dict[str, Tensor]:
        """Calls ``losses``: DDP and autocast wrap only ``forward``."""
        return self.losses(a, b, c)

    def save_pretrained(self, folder: str | Path, card: str = "") -> Path:
        """Write a model folder (see ``alam_core.checkpoints``); ``card`` is its README.md."""
        config = {"kind": self.kind, "model": to_dict(self.config)}
        return save_checkpoint(folder, self, config, card=card)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Self:
        """Read a model folder or a model of the hub, in eval mode on the CPU.

        ``TransitionEncoder`` reads every registered kind, a subclass only its own. Raises UserError
        for a checkpoint of another kind, and if something is missing or does not fit.
        """
        any_kind = cls is TransitionEncoder
        kinds = TRANSITION_ENCODERS.names() if any_kind else [cls.kind]
        checkpoint = read_checkpoint(folder, *kinds)
        found: Any = TRANSITION_ENCODERS.get(checkpoint.config["kind"]) if any_kind else cls
        source = f"{folder}/config.json"
        model = found(from_dict(found.config_type, checkpoint.config.get("model", {}), source))
        load_tensors(model, checkpoint.tensors, folder)
        return model.eval()


TRANSITION_ENCODERS: Registry[type[TransitionEncoder]] = Registry(
    "transition encoder", "alam.transition_encoders", modules=("alam_core.latent_action.model",)
)
