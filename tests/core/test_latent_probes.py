"""The probes: on toy models whose algebra is known, and compared with the paper's definitions."""

from typing import cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from alam_core.latent_action.interface import TransitionEncoder
from alam_core.latent_action.measures import (
    dead_codes,
    effective_dims,
    mean_norm,
    perplexity,
    psnr,
    relative_error,
    ssim,
)
from alam_core.latent_action.probes import _donors, probe, probe_horizons

TIMES = ("1", "2", "3", "4", "5")


class Toy(nn.Module):
    """z = scale * (target - source) + constant, decoded exactly; ``bend`` makes it neither additive
    nor reversible.
    """

    def __init__(
        self, constant: float = 0.0, scale: float = 1.0, bend: float = 0.0, moved: float = 1.0
    ) -> None:
        super().__init__()
        self.parameter = nn.Parameter(torch.zeros(1))
        self.constant, self.scale, self.bend, self.moved = constant, scale, bend, moved
        self.codebook_size = 8

    def encode(self, source: Tensor, target: Tensor) -> Tensor:
        change = (target - source).flatten(2).transpose(1, 2)  # (B, S * S, 3)
        return self.scale * change * self.moved + self.bend * change.abs() + self.constant

    def decode(self, source: Tensor, z: Tensor) -> Tensor:
        return (
            source + ((z - self.constant) / self.scale).transpose(1, 2).reshape(source.shape)
        ).clamp(0, 1)

    def quantize(self, z: Tensor) -> tuple[Tensor, Tensor | None]:
        return torch.zeros_like(z), torch.arange(z.shape[0] * z.shape[1]).reshape(z.shape[:2]) % 6


class Still(Toy):
    """A decoder that returns the source for any z."""

    def decode(self, source: Tensor, z: Tensor) -> Tensor:
        return source


def model(toy: Toy) -> TransitionEncoder:
    return cast(TransitionEncoder, toy)


def clips(number: int = 7, size: int = 16, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (6, number, size, size, 3), np.uint8)


def test_an_additive_model_has_no_error_and_sums_decode_as_well_as_direct_latents() -> None:
    metrics = probe_horizons(model(Toy()), clips())
    for t in TIMES:
        assert (
            max(metrics[name][t] for name in ("add_rel", "rev_rel", "add_centred", "rev_centred"))
            < 1e-5
        )
        assert metrics["psnr"][t] == pytest.approx(100) and metrics["psnr_cum"][t] > 90
        assert metrics["ssim"][t] == pytest.approx(1) and metrics["norms"][t] > 1
    assert metrics["psnr_k_shuffled"] < 15  # wrong z, wrong frame
    assert metrics["constant_share"] < 0.1 and metrics["effective_dims"] > 10


def test_a_constant_z_has_errors_t_minus_one_and_two() -> None:
    metrics = probe_horizons(model(Toy(constant=0.5, scale=0.0 + 1e-30)), clips())
    for t in TIMES:
        assert metrics["add_rel"][t] == pytest.approx(int(t) - 1, abs=1e-6)
        assert metrics["rev_rel"][t] == pytest.approx(2)
    assert metrics["constant_share"] == pytest.approx(1)
    assert metrics["latent_norm"] == pytest.approx(0.5 * np.sqrt(16 * 16 * 3))


def test_centring_removes_a_constant_and_nothing_else() -> None:
    metrics = probe_horizons(model(Toy(constant=3.0)), clips())
    plain, bent, bent_shifted = (
        probe_horizons(model(Toy(constant=c, bend=0.3)), clips()) for c in (0.0, 0.0, 3.0)
    )
    for t in TIMES:
        assert metrics["add_centred"][t] < 1e-5 and metrics["rev_centred"][t] < 1e-5
        assert metrics["rev_rel"][t] > 1
        for name in ("add_centred", "rev_centred"):
            assert bent_shifted[name][t] == pytest.approx(bent[name][t], abs=1e-4)
    assert plain["rev_centred"]["1"] > 0.05 and plain["add_centred"]["5"] > 0.05


def test_shrinking_z_changes_raw_errors_only() -> None:
    large, small = (
        probe_horizons(model(Toy(scale=s, bend=0.5 * s, constant=0.2 * s)), clips())
        for s in (1.0, 0.01)
    )
    for t in TIMES[1:]:
        for name in ("add", "rev", "norms"):
            assert small[name][t] == pytest.approx(0.01 * large[name][t], rel=1e-3)
        for name in ("add_rel", "rev_rel", "add_centred", "rev_centred"):
            assert small[name][t] == pytest.approx(large[name][t], rel=1e-3)
    assert small["effective_dims"] == pytest.approx(large["effective_dims"], rel=1e-3)


def test_the_metrics_are_the_papers_definitions_for_any_batch_size() -> None:
    toy, frames = Toy(constant=0.1, bend=0.4, moved=0.7), clips()
    whole, parts = (
        probe_horizons(model(toy), frames),
        probe_horizons(model(toy), frames, batch_size=3),
    )
    images = torch.from_numpy(frames).permute(0, 1, 4, 2, 3).float() / 255  # (6, N, 3, S, S)

    def latent(clip: int, i: int, j: int) -> Tensor:
        return toy.encode(images[i, clip][None], images[j, clip][None])

    for t in range(1, 6):
        additivity, reversal, norms, direct, cumulative = [], [], [], [], []
        for clip in range(frames.shape[1]):
            total = torch.stack([latent(clip, i, i + 1) for i in range(t)]).sum(dim=0)
            additivity.append((latent(clip, 0, t) - total).norm())
            reversal.append((latent(clip, 0, t) + latent(clip, t, 0)).norm())
            norms.append(latent(clip, 0, t).norm())
            direct.append(
                psnr(toy.decode(images[0, clip][None], latent(clip, 0, t)), images[t, clip][None])
            )
            cumulative.append(psnr(toy.decode(images[0, clip][None], total), images[t, clip][None]))
        for metrics in (whole, parts):
            key = str(t)
            assert metrics["add"][key] == pytest.approx(
                float(torch.stack(additivity).mean()), rel=1e-4, abs=1e-6
            )
            assert metrics["rev"][key] == pytest.approx(
                float(torch.stack(reversal).mean()), rel=1e-4
            )
            assert metrics["norms"][key] == pytest.approx(
                float(torch.stack(norms).mean()), rel=1e-4
            )
            assert metrics["add_rel"][key] == pytest.approx(
                metrics["add"][key] / metrics["norms"][key]
            )
            assert metrics["psnr"][key] == pytest.approx(np.mean(direct), rel=1e-4)
            assert metrics["psnr_cum"][key] == pytest.approx(np.mean(cumulative), rel=1e-4)
    assert whole["add"]["1"] == 0


def test_a_decoder_that_copies_scores_as_copying_also_with_a_shuffled_z() -> None:
    def distance(prediction: Tensor, target: Tensor) -> Tensor:
        return (prediction - target).abs().mean()

    metrics = probe_horizons(model(Still()), clips(), lpips=distance, batch_size=4)
    for score in ("psnr", "ssim", "lpips"):
        for way in ("", "_cum"):
            assert metrics[f"{score}{way}"] == pytest.approx(metrics[f"{score}_copy"])
    assert metrics["psnr_k_shuffled"] == pytest.approx(metrics["psnr_copy"]["1"])
    assert probe_horizons(model(Still()), clips())["lpips_cum"] is None


def test_codes_are_counted() -> None:
    metrics = probe_horizons(model(Toy()), clips())
    assert metrics["dead_codes"] == 2 and metrics["codebook_perplexity"] == pytest.approx(
        6, rel=1e-3
    )
    # The toy's codebook holds zeros.
    assert metrics["psnr_quantized"] == pytest.approx(metrics["psnr_copy"])


def test_a_shuffled_z_comes_from_another_clip_of_the_same_group() -> None:
    groups = np.array([0, 1, 0, 1, 1, 0, 0, 2])
    donors = _donors(groups)
    assert (donors != np.arange(8)).all()
    assert (groups[donors] == groups)[:7].all()  # the last one is alone in its group
    assert sorted(_donors(np.zeros(9, int))) == list(range(9))


def test_clips_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(6, N, S, S, 3\)"):
        probe_horizons(model(Toy()), clips()[:5])


def test_progress_counts_each_clip_twice() -> None:
    done: list[int] = []
    probe_horizons(model(Toy()), clips(), batch_size=3, progress=done.append)
    assert sum(done) == 2 * 7


def test_the_short_probe_finds_the_same_errors() -> None:
    # 33 is one more than a batch: every triplet must still get the z of another one.
    triplets = clips(33)[:3]
    metrics = probe(model(Toy(constant=0.5, scale=1e-30)), triplets)
    assert metrics["add_rel"] == pytest.approx(1) and metrics["rev_rel"] == pytest.approx(2)
    assert metrics["add"] == pytest.approx(metrics["latent_norm"]) and metrics[
        "rev"
    ] == pytest.approx(2 * metrics["latent_norm"])
    exact = probe(model(Toy()), triplets)
    assert (
        exact["add_rel"] < 1e-5
        and exact["psnr_k"] == pytest.approx(100)
        and exact["psnr_sum_2k"] > 90
    )
    assert exact["psnr_k_shuffled"] < 15 and exact["dead_codes"] == 2
    assert exact["copy_psnr_k"] == pytest.approx(probe(model(Still()), triplets)["psnr_k"])


def test_measures_of_known_values() -> None:
    grey = torch.full((2, 3, 16, 16), 0.5)
    assert psnr(grey + 0.1, grey) == pytest.approx(20, abs=1e-4) and psnr(
        grey, grey
    ) == pytest.approx(100)
    image = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    noisy = [
        ssim(
            image + level * torch.randn(image.shape, generator=torch.Generator().manual_seed(1)),
            image,
        )
        for level in (0, 0.1, 0.3)
    ]
    assert noisy[0] == pytest.approx(1) and noisy == sorted(noisy, reverse=True) and noisy[2] < 0.8
    codes = torch.tensor([[0, 1], [1, 5]])
    assert dead_codes(codes, 8) == 5 and perplexity(codes, 8) == pytest.approx(
        np.exp(1.5 * np.log(2)), rel=1e-6
    )
    assert effective_dims(torch.cat([torch.eye(4), -torch.eye(4)])) == pytest.approx(4)
    assert effective_dims(torch.arange(5.0)[:, None] * torch.ones(5, 3)) == pytest.approx(1)
    z = torch.tensor([[3.0, 4.0], [0.0, 1.0]])
    assert mean_norm(z) == 3 and relative_error(2 * z, z) == pytest.approx(2)
