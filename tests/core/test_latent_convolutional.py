"""The convolutional networks of stage 1: keypoints follow what they are on, the decoder uses z."""

import pytest
import torch
from test_latent_model import ENCODERS, frames, small, trained_a_little

from alam_core.errors import UserError
from alam_core.latent_action import TransitionConfig
from alam_core.latent_action.convolutional import SoftArgmax


def test_keypoints_move_with_what_they_are_on() -> None:
    """A position is the mean of a heat map: shifting the frame by a stride shifts the positions."""
    maps = SoftArgmax(1, 1, 8)
    with torch.no_grad():
        maps.maps.weight.fill_(20.0)
    frame = torch.zeros(1, 1, 8, 8)
    frame[0, 0, 2, 3] = 1.0
    row, column = maps(frame)[0].tolist()
    moved_row, moved_column = maps(frame.roll((1, 2), (2, 3)))[0].tolist()
    assert (row, column) == pytest.approx(((2.5 / 8) * 2 - 1, (3.5 / 8) * 2 - 1), abs=1e-3)
    assert moved_row - row == pytest.approx(2 / 8, abs=1e-3)
    assert moved_column - column == pytest.approx(4 / 8, abs=1e-3)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_convolutional_decoder_copies_until_it_is_trained_and_then_uses_z(encoder: str) -> None:
    options = {"encoder": encoder, "decoder": "convolutional", "codebook_size": 0}
    a, b, _ = frames()
    model = small(**options).eval()
    assert torch.equal(model.decode(a, model.encode(a, b)), a)
    trained = trained_a_little(**options).eval()
    z = trained.encode(a, b)
    assert not torch.allclose(trained.decode(a, z), trained.decode(a, z.roll(1, 0)), atol=1e-5)
    assert "vq" not in trained.losses(a, b, b)
    assert trained.quantize(z) == (z, None)


def test_a_decoder_sees_where_keypoints_are_if_the_encoder_is_exact() -> None:
    model = trained_a_little(encoder="keypoints", decoder="convolutional", codebook_size=0).eval()
    a, b, _ = frames()
    z = model.encode(a, b)
    potential = model.encoder.potential(a)
    image = model.decoder(a, z, potential)
    assert torch.equal(model.decode(a, z), image.clamp(0, 1))
    assert not torch.allclose(model.decoder(a, z, potential.roll(1, 0)), image, atol=1e-6)


def test_settings_of_convolutional_networks() -> None:
    with pytest.raises(UserError, match="choose 1 to 2, as four coordinates"):
        TransitionConfig(encoder="keypoints", latent_tokens=3, latent_dim=4, keypoints=3)
    with pytest.raises(UserError, match="multiple of 16"):
        TransitionConfig(encoder="keypoints", image_size=40)
