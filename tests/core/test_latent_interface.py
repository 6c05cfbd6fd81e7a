"""The interface of latent action methods: using one through it, and loading one by its kind."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from policy_fixtures import tiny_policy
from torch import Tensor, nn

from alam_core.errors import UserError
from alam_core.latent_action import (
    LossConfig,
    TransitionConfig,
    TransitionEncoder,
    TransitionModel,
    encode_images,
)
from alam_core.latent_action.interface import TRANSITION_ENCODERS
from alam_core.latent_action.probes import probe


@dataclass
class MeanConfig:
    """How the toy method is built."""

    image_size: int = 16
    gain: float = 1.0


class MeanChange(TransitionEncoder):
    """A toy method without a codebook: z is the change of the mean colour."""

    kind = "mean_change"
    config_type = MeanConfig

    def __init__(self, config: MeanConfig) -> None:
        super().__init__()
        self.config = config
        self.scale = nn.Parameter(torch.tensor(config.gain))

    @property
    def image_size(self) -> int:
        return self.config.image_size

    @property
    def latent_shape(self) -> tuple[int, int]:
        return 1, 3

    @property
    def additive(self) -> bool:
        return True

    def encode(self, source: Tensor, target: Tensor) -> Tensor:
        return self.scale * (target - source).mean((2, 3))[:, None]

    def decode(self, source: Tensor, z: Tensor) -> Tensor:
        return (source + z[:, 0, :, None, None] / self.scale).clamp(0, 1)

    def losses(self, a: Tensor, b: Tensor, c: Tensor) -> dict[str, Tensor]:
        return {"total": (self.decode(a, self.encode(a, c)) - c).square().mean()}


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TRANSITION_ENCODERS._entries, "mean_change", MeanChange)


def images(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 4, 16, 16, 3), np.uint8)


def test_any_kind_is_read_by_its_name(tmp_path: Path, registered: None) -> None:
    MeanChange(MeanConfig(gain=2.0)).save_pretrained(tmp_path / "mean")
    TransitionModel(TransitionConfig(image_size=16)).save_pretrained(tmp_path / "alam")
    mean = TransitionEncoder.from_pretrained(tmp_path / "mean")
    assert type(mean) is MeanChange and float(mean.scale) == 2.0 and not mean.training
    assert type(TransitionEncoder.from_pretrained(tmp_path / "alam")) is TransitionModel
    with pytest.raises(UserError, match="holds a mean_change model where a transition model is"):
        TransitionModel.from_pretrained(tmp_path / "mean")


def test_a_policy_is_no_encoder(tmp_path: Path) -> None:
    tiny_policy().save_pretrained(tmp_path / "policy")
    with pytest.raises(UserError, match="holds a policy model where a transition model is needed"):
        TransitionEncoder.from_pretrained(tmp_path / "policy")


def test_another_method_is_encoded_and_probed_through_the_interface() -> None:
    model, (a, b, _) = MeanChange(MeanConfig()).eval(), images(3)
    z = encode_images(model, a, b)
    expected = (b.astype(np.float64) - a).mean((1, 2)) / 255
    np.testing.assert_allclose(z, expected, atol=1e-6)
    metrics = probe(model, images(3))
    assert metrics["add_rel"] < 1e-5 and metrics["rev_rel"] < 1e-5
    assert metrics["psnr_k"] > metrics["copy_psnr_k"]
    assert metrics["dead_codes"] == 0


@pytest.mark.parametrize(
    ("encoder", "variant", "add", "additive"),
    [
        ("residual", "full", 1.0, True),
        ("residual", "no_rev", 1.0, True),
        ("residual", "no_add", 1.0, False),
        ("residual", "full", 0.0, False),
        ("antisymmetric", "lam", 1.0, False),
        ("potential", "lam", 1.0, True),
    ],
)
def test_alam_is_additive_by_training_or_by_construction(
    encoder: str, variant: str, add: float, additive: bool
) -> None:
    losses = LossConfig(add=add)
    config = TransitionConfig(encoder=encoder, variant=variant, losses=losses)
    model = TransitionModel(config)
    assert model.additive == additive
    assert model.latent_shape == (7, 32) and model.latent_size == 7 * 32 and model.image_size == 64
