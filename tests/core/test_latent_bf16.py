"""Under bfloat16 autocast, the algebra of the latents and the codebook keep float32 precision."""

import pytest
import torch

from alam_core.latent_action.config import TransitionConfig
from alam_core.latent_action.model import TransitionModel
from alam_core.latent_action.quantizer import Quantizer

SMALL = {
    "image_size": 16,
    "patch_size": 4,
    "width": 32,
    "heads": 2,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "latent_tokens": 3,
}


@pytest.mark.parametrize("encoder", ["antisymmetric", "potential"])
def test_exact_encoders_stay_exact(encoder: str) -> None:
    torch.manual_seed(0)
    model = TransitionModel(TransitionConfig(encoder=encoder, **SMALL))  # type: ignore[arg-type]
    frames = torch.rand(3, 4, 3, 16, 16)
    full = model.encoder(frames, [(0, 1), (1, 0), (1, 2), (0, 2)])
    with torch.autocast("cpu", torch.bfloat16):
        z_ab, z_ba, z_bc, z_ac = model.encoder(frames, [(0, 1), (1, 0), (1, 2), (0, 2)])
    assert z_ab.dtype == torch.float32 and not torch.equal(z_ab, full[0]), "bfloat16 was not used"
    size = float(z_ab.detach().norm())
    assert float((z_ab + z_ba).norm()) < 1e-6 * size
    if encoder == "potential":
        assert float((z_ab + z_bc - z_ac).norm()) < 1e-6 * size


def test_the_codebook_moves_in_float32() -> None:
    torch.manual_seed(0)
    z = torch.randn(50, 3, 8)

    def moved(bf16: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        torch.manual_seed(1)
        quantizer = Quantizer(TransitionConfig(latent_dim=8, codebook_size=16)).train()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            for _ in range(3):
                z_q, codes = quantizer(z)
        return z_q, codes, quantizer.codebook

    for half, full in zip(moved(True), moved(False), strict=True):
        assert half.dtype == full.dtype and torch.equal(half, full)
