"""The transition model: gradients, codebook updates, variants, and bit-equal saving and loading."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from alam_core.checkpoints import checkpoint_hash
from alam_core.config import from_dict
from alam_core.errors import UserError
from alam_core.latent_action import LossConfig, TransitionConfig, TransitionModel, encode_images
from alam_core.latent_action.config import ENCODER_NETWORKS
from alam_core.latent_action.layers import patchify, unpatchify
from alam_core.latent_action.losses import reconstruction_loss

SIZE = dict(
    image_size=16,
    patch_size=8,
    width=16,
    heads=2,
    encoder_layers=2,
    decoder_layers=1,
    latent_tokens=3,
    latent_dim=4,
    codebook_size=8,
    keypoints=2,
)
ENCODERS = ("relational", "residual", "antisymmetric", "potential", "keypoints", "gaussian")
LOSSES = set(LossConfig.__dataclass_fields__)


def small(warmup_steps: int = 0, **options: object) -> TransitionModel:
    """A toy model; ``options`` are fields of TransitionConfig or of LossConfig."""
    torch.manual_seed(0)
    losses = LossConfig(**{name: value for name, value in options.items() if name in LOSSES})  # type: ignore[arg-type]
    rest = {name: value for name, value in options.items() if name not in LOSSES}
    codebook = {"codebook_size": 0} if options.get("encoder") == "gaussian" else {}
    return TransitionModel(
        TransitionConfig(
            **{**SIZE, "ramp_steps": 0, **codebook, **rest},
            warmup_steps=warmup_steps,
            losses=losses,
        )
    )  # type: ignore[arg-type]


def trained_a_little(**options: object) -> TransitionModel:
    """A model after a few steps: its decoder uses z, and its codebook is initialised."""
    model = small(**options)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for step in range(5):
        model.losses(*frames(16, seed=step))["total"].backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


def frames(batch: int = 4, seed: int = 0) -> Tensor:
    return torch.rand(3, batch, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


def gradients(model: TransitionModel, term: str, part: str) -> float:
    model.zero_grad()
    model.losses(*frames())[term].backward()
    return sum(
        float(p.grad.abs().sum())
        for name, p in model.named_parameters()
        if name.startswith(part) and p.grad is not None
    )


def test_shapes_and_ranges() -> None:
    model = trained_a_little().eval()
    a, b, _ = frames(5)
    z = model.encode(a, b)
    assert z.shape == (5, 3, 4) and model.latent_size == 12
    image = model.decode(a, z)
    assert image.shape == a.shape and image.min().item() >= 0 and image.max().item() <= 1


def test_an_untrained_model_copies_the_source() -> None:
    a, b, _ = frames()
    model = small().eval()
    assert torch.equal(model.decode(a, model.encode(a, b)), a)
    assert not torch.allclose(
        small(output="sigmoid").eval().decode(a, model.encode(a, b)), a, atol=0.1
    )


def test_total_is_the_weighted_sum() -> None:
    weights = {"rec": 0.7, "add": 0.3, "rev": 0.2, "vq": 0.11}
    terms = small(**weights).losses(*frames())
    assert float(terms["total"].detach()) == pytest.approx(
        sum(weight * float(terms[name].detach()) for name, weight in weights.items()), rel=1e-5
    )


def test_codebook_and_algebra_are_off_during_the_warm_up_and_on_after_it() -> None:
    model = small(warmup_steps=4, ramp_steps=5, add=0.5, rev=0.2)
    for step in range(10):
        terms = model.losses(*frames())
        share = min(1.0, max(0.0, (step - 4) / 5))
        expected = terms["rec"] + terms["vq"] + share * (0.5 * terms["add"] + 0.2 * terms["rev"])
        assert float(terms["total"].detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
        assert (float(terms["vq"]) == 0) == (step < 4)


def test_algebraic_losses_reach_the_encoder_and_not_the_decoder() -> None:
    model = trained_a_little()
    for term in ("add", "rev"):
        assert gradients(model, term, "encoder") > 0
        assert gradients(model, term, "decoder") == 0
    assert gradients(model, "rec", "encoder") > 0  # straight through the codebook
    assert gradients(model, "rec", "decoder") > 0


def test_codebook_is_moved_by_averages_and_not_by_gradients() -> None:
    model = trained_a_little()
    assert not any("vq" in name for name, _ in model.named_parameters())
    before = model.quantizer.codebook.clone()
    model.losses(*frames(16, seed=9))
    assert not torch.equal(before, model.quantizer.codebook)
    before = model.quantizer.codebook.clone()
    model.eval().losses(*frames(16, seed=10))
    assert torch.equal(before, model.quantizer.codebook)


def test_codebook_follows_the_latents_by_its_decay() -> None:
    torch.manual_seed(0)
    quantizer = small().quantizer
    quantizer.vq._codebook.threshold_ema_dead_code = 0
    quantizer(torch.randn(64, 3, 4))
    goal = torch.full((64, 3, 4), 3.0)
    nearest = int(quantizer(goal)[1][0, 0])
    distances = []
    for _ in range(3):
        quantizer(goal)
        distances.append(float((quantizer.codebook[nearest] - 3).norm()))
    assert distances[0] > distances[1] > distances[2] > 0


def test_quantised_latents_are_codes_with_straight_through_gradients() -> None:
    model = trained_a_little()
    z = torch.randn(4, 3, 4, requires_grad=True)
    weights = torch.randn(4, 3, 4)
    z_q, codes = model.quantizer(z)
    (z_q * weights).sum().backward()
    assert torch.equal(z.grad, weights)  # type: ignore[arg-type]
    model.eval()
    z_q, codes = model.quantizer(z.detach())
    assert torch.equal(z_q, model.quantizer.codebook[codes])
    nearest = (
        torch.cdist(z.detach().flatten(0, 1), model.quantizer.codebook).argmin(1).reshape(4, 3)
    )
    assert torch.equal(codes, nearest)


def test_encoding_has_a_direction() -> None:
    model = small().eval()
    a, b, _ = frames()
    forward, backward = model.encode(a, b), model.encode(b, a)
    assert not torch.allclose(forward, backward, atol=1e-3)


def test_decoding_depends_on_z_and_on_the_source() -> None:
    model = trained_a_little().eval()
    a, b, c = frames()
    z = model.encode(a, b)
    assert not torch.allclose(model.decode(a, z), model.decode(a, z.roll(1, 0)), atol=1e-4)
    assert not torch.allclose(model.decode(a, z), model.decode(c, z), atol=1e-2)


def test_each_pair_is_encoded_on_its_own() -> None:
    model = trained_a_little().eval()
    a, b, c = frames()
    together = model.encode(a, b)
    mixed = model.encode(torch.cat([a[:1], c[1:]]), b)
    torch.testing.assert_close(together[:1], mixed[:1])
    assert not torch.allclose(together[1:], mixed[1:], atol=1e-4)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_clip_is_encoded_as_its_pairs_are(encoder: str) -> None:
    model = trained_a_little(encoder=encoder).eval()
    clip = frames()
    pairs = [(0, 1), (1, 2), (0, 2), (1, 0), (2, 2)]
    for (i, j), z in zip(pairs, model.encoder(clip, pairs), strict=True):
        torch.testing.assert_close(z, model.encode(clip[i], clip[j]))


def test_the_exact_encoders_are_exact_and_that_of_the_paper_is_not() -> None:
    clip = frames(6)
    residual = {}
    for encoder in ENCODERS:
        model = trained_a_little(encoder=encoder).eval()
        ab, bc, ac, ba = model.encoder(clip, [(0, 1), (1, 2), (0, 2), (1, 0)])
        scale = ac.norm()
        residual[encoder] = float((ac - ab - bc).norm() / scale), float((ab + ba).norm() / scale)
    assert residual["potential"][0] < 1e-5 and residual["potential"][1] < 1e-5
    assert residual["antisymmetric"][0] > 0.05 and residual["antisymmetric"][1] < 1e-5
    for encoder in ("relational", "residual"):
        assert residual[encoder][0] > 0.05 and residual[encoder][1] > 0.05


def test_the_potential_is_a_function_of_one_frame() -> None:
    model = trained_a_little(encoder="potential").eval()
    a, b, _ = frames()
    torch.testing.assert_close(
        model.encode(a, b), model.encoder.potential(b) - model.encoder.potential(a)
    )


@pytest.mark.parametrize("encoder", ENCODERS)
def test_every_trained_weight_influences_the_loss(encoder: str) -> None:
    """DDP waits for a gradient of each weight."""
    model = trained_a_little(encoder=encoder)
    model.losses(*frames(seed=7))["total"].backward()
    assert [
        name
        for name, weight in model.named_parameters()
        if weight.requires_grad and weight.grad is None
    ] == []


def test_a_source_is_computed_without_its_target() -> None:
    """Attention in time is causal, so a frame that several transitions start from is shared by
    them.
    """
    model = trained_a_little(encoder="relational").eval()
    a, b, c = frames()
    calls = []
    model.encoder.blocks[0].register_forward_hook(
        lambda _module, inputs, _output: calls.append((len(inputs[0]), len(inputs[1])))
    )
    model.encoder(torch.stack([a, b, c]), [(0, 1), (0, 2), (1, 2)])
    assert calls == [(2 * len(a), 3 * len(a))]  # two sources, three targets


def test_variants_leave_out_their_losses() -> None:
    expected = {
        "full": ("add", "rev"),
        "no_rev": ("add",),
        "no_add": ("rev",),
        "no_rev_add": (),
        "lam": (),
    }
    for variant, kept in expected.items():
        terms = small(variant=variant, add=0.5, rev=0.25).losses(*frames())
        total = (
            terms["rec"]
            + terms["vq"]
            + sum({"add": 0.5, "rev": 0.25}[name] * terms[name] for name in kept)
        )
        assert float(terms["total"].detach()) == pytest.approx(float(total.detach()), rel=1e-5)
        assert ("add" in terms) == (variant != "lam")  # without weight they are still reported


def test_lam_sees_neighbours_only() -> None:
    model = trained_a_little(variant="lam").eval()
    a, b, c = frames()
    rec = float(model.losses(a, b, c)["rec"])
    ab, bc = (
        model.decoder(source, model.quantizer(model.encode(source, target))[0])
        for source, target in ((a, b), (b, c))
    )
    apart = [float(reconstruction_loss(*pair, "relative")) for pair in ((ab, b, a), (bc, c, b))]
    assert rec == pytest.approx(sum(apart) / 2, rel=1e-4)


def test_images_that_patches_do_not_divide_are_padded_inside() -> None:
    model = small(image_size=20)
    assert model.config.patches == 9
    a, b = torch.rand(2, 4, 3, 20, 20)
    assert torch.equal(model.eval().decode(a, model.encode(a, b)), a)
    assert torch.equal(unpatchify(patchify(a, 8), 8, 20), a)


def test_losses_are_those_of_the_four_pairs_encoded_apart() -> None:
    model = trained_a_little(algebra="paper").eval()
    a, b, c = frames()
    ab, bc, ac, ba = model.encode(a, b), model.encode(b, c), model.encode(a, c), model.encode(b, a)
    terms = model.losses(a, b, c)
    assert float(terms["add"]) == pytest.approx(
        float((ac - ab - bc).square().sum((1, 2)).mean()), rel=1e-3
    )
    assert float(terms["rev"]) == pytest.approx(
        float((ab + ba).square().sum((1, 2)).mean()), rel=1e-3
    )


def test_saving_and_loading_keeps_every_bit(tmp_path: Path) -> None:
    model = trained_a_little().eval()
    folder = model.save_pretrained(tmp_path / "m", card="# it")
    again = TransitionModel.from_pretrained(folder)
    assert again.config == model.config and not again.training
    assert all(
        torch.equal(again.state_dict()[name], value) for name, value in model.state_dict().items()
    )
    a, b, _ = frames()
    assert torch.equal(model.encode(a, b), again.encode(a, b))
    assert (folder / "README.md").read_text() == "# it"


def test_a_failed_save_leaves_the_old_model_intact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = small()
    folder = old.save_pretrained(tmp_path / "m")

    def full(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(OSError, match="no space"):
        small(add=0.7).save_pretrained(folder)
    monkeypatch.undo()
    assert TransitionModel.from_pretrained(folder).config == old.config
    assert small(add=0.7).save_pretrained(folder) == folder
    assert TransitionModel.from_pretrained(folder).config.losses.add == 0.7
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_loading_names_what_does_not_fit(tmp_path: Path) -> None:
    folder = small().save_pretrained(tmp_path / "m")
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(
        config.replace('"encoder_layers": 2', '"encoder_layers": 3')
    )
    with pytest.raises(UserError, match=r"missing encoder\.blocks\.2"):
        TransitionModel.from_pretrained(folder)
    (folder / "config.json").write_text(config.replace('"latent_tokens"', '"latent_tokenz"'))
    with pytest.raises(UserError, match="latent_tokenz"):
        TransitionModel.from_pretrained(folder)
    (folder / "config.json").write_text("[]")
    with pytest.raises(UserError, match="must hold objects"):
        TransitionModel.from_pretrained(folder)


def test_hash_changes_with_weights_and_configuration_only(tmp_path: Path) -> None:
    model = small()
    first = checkpoint_hash(model.save_pretrained(tmp_path / "m", card="one"))
    assert first == checkpoint_hash(model.save_pretrained(tmp_path / "n", card="two"))
    with torch.no_grad():
        model.encoder.head.bias[0] += 1e-6
    second = checkpoint_hash(model.save_pretrained(tmp_path / "m"))
    config = tmp_path / "m" / "config.json"
    config.write_text(config.read_text().replace('"heads": 2', '"heads": 4'))
    assert len({first, second, checkpoint_hash(tmp_path / "m")}) == 3


def test_encode_images_equals_encode_for_any_batch_and_image_size() -> None:
    model = trained_a_little().eval()
    images = np.random.default_rng(0).integers(0, 256, (2, 5, 16, 16, 3), np.uint8)
    source, target = torch.from_numpy(images).permute(0, 1, 4, 2, 3).float() / 255
    with torch.no_grad():
        expected = model.encode(source, target).flatten(1).numpy()
    for batch_size in (2, 64):
        z = encode_images(model, images[0], images[1], batch_size)
        assert z.dtype == np.float32
        np.testing.assert_allclose(z, expected, rtol=1e-4, atol=1e-5)
    doubled = images.repeat(2, axis=2).repeat(2, axis=3)
    np.testing.assert_allclose(
        encode_images(model, doubled[0], doubled[1]), expected, rtol=1e-4, atol=1e-5
    )
    with pytest.raises(ValueError, match="must both be"):
        encode_images(model, images[0], images[1, :2])


def test_impossible_settings_are_refused_in_one_line() -> None:
    with pytest.raises(UserError, match="patch_size 24 does not fit"):
        TransitionConfig(image_size=20, patch_size=24)
    with pytest.raises(
        UserError,
        match="no encoder 'other'; there are: antisymmetric, features, gaussian, keypoints",
    ):
        TransitionConfig(encoder="other")
    for name in ("variant", "output"):
        with pytest.raises(UserError, match=f"f.json: {name} is 'other': choose one of"):
            from_dict(TransitionConfig, {name: "other"}, "f.json")
    with pytest.raises(UserError, match="losses.algebra is 'sharp': choose one of paper, relative"):
        from_dict(TransitionConfig, {"losses": {"algebra": "sharp"}})


def test_encoders_are_found_by_name() -> None:
    assert ENCODER_NETWORKS.names() == sorted([*ENCODERS, "features"])


def test_the_default_model_encodes_images_of_96_pixels() -> None:
    model = TransitionModel(TransitionConfig()).eval()
    images = np.zeros((2, 96, 96, 3), np.uint8)
    assert encode_images(model, images, images).shape == (2, model.latent_size)
