"""Figures of a trained model on held-out video: reconstruction, algebra (Section 4.1) and the
health of z.

``probe`` is the short one, for evaluation while training; ``probe_horizons`` is the paper's, over
the horizons k to 5k.

Letters: N clips, B triplets or clips of a batch, K latent tokens, D numbers a token, F = K * D, S
image side, t horizon in units of k.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from alam_core.latent_action.inference import to_images
from alam_core.latent_action.interface import TransitionEncoder
from alam_core.latent_action.losses import additivity_residual, reversal_residual
from alam_core.latent_action.measures import (
    constant_share,
    dead_codes,
    effective_dims,
    mean_norm,
    perplexity,
    psnr,
    relative_error,
    ssim,
)

HORIZONS = 5  # t from 1 to 5
ImageDistance = Callable[[Tensor, Tensor], Tensor]


@torch.no_grad()
def probe(model: TransitionEncoder, triplets: np.ndarray, batch_size: int = 32) -> dict[str, float]:
    """Figures of ``model`` in eval mode on ``triplets``, uint8 (3, B, S, S, 3), frames k and 2k
    after the first.

    psnr_*: dB against frame b from a: ``k`` from the continuous z, ``quantized`` through the
    codebook, ``shuffled`` with another triplet's z, ``copy`` the source itself. ``psnr_sum_2k``,
    ``psnr_2k``, ``copy_2k``: frame c from a by z_ab + z_bc, by z_ac, by copying. ``add``, ``rev``:
    mean norm of eq. 2's residuals; ``add_rel``, ``rev_rel``: over the mean norm of z_ac and z_ab.
    ``latent_norm``: mean norm of z_ab; ``constant_share``, ``effective_dims`` of z_ab over the
    triplets; ``codebook_perplexity`` and ``dead_codes`` of its codes (0 while the codebook is not
    in use).
    """
    device = next(model.parameters()).device
    latents: dict[str, list[Tensor]] = {"ab": [], "bc": [], "ac": [], "ba": []}
    codes, decibels = [], []
    size = triplets.shape[1]
    triplets = triplets[
        :, np.random.default_rng(0).permutation(size)
    ]  # so that a neighbour's z is from elsewhere
    for rows in np.array_split(
        np.arange(size), -(-size // batch_size)
    ):  # no batch of one, where nothing could be shuffled
        a, b, c = (to_images(frames[rows], device) for frames in triplets)
        z = {
            "ab": model.encode(a, b),
            "bc": model.encode(b, c),
            "ac": model.encode(a, c),
            "ba": model.encode(b, a),
        }
        for name, value in z.items():
            latents[name].append(value.flatten(1).cpu())
        z_q, code = model.quantize(z["ab"])
        if code is not None:
            codes.append(code.cpu())
        shown = {
            "psnr_k": (model.decode(a, z["ab"]), b),
            "psnr_k_quantized": (model.decode(a, z_q), b),
            "psnr_k_shuffled": (model.decode(a, z["ab"].roll(1, 0)), b),
            "copy_psnr_k": (a, b),
            "psnr_2k": (model.decode(a, z["ac"]), c),
            "psnr_sum_2k": (model.decode(a, z["ab"] + z["bc"]), c),
            "copy_psnr_2k": (a, c),
        }
        decibels.append({name: len(a) * psnr(*images) for name, images in shown.items()})
    ab, bc, ac, ba = (torch.cat(latents[name]) for name in ("ab", "bc", "ac", "ba"))
    additivity, reversal = additivity_residual(ab, bc, ac), reversal_residual(ab, ba)
    return {
        **{name: sum(part[name] for part in decibels) / size for name in decibels[0]},
        "add": mean_norm(additivity),
        "rev": mean_norm(reversal),
        "add_rel": relative_error(additivity, ac),
        "rev_rel": relative_error(reversal, ab),
        "latent_norm": mean_norm(ab),
        "constant_share": constant_share(ab),
        "effective_dims": effective_dims(ab),
        "codebook_perplexity": perplexity(torch.cat(codes), model.codebook_size) if codes else 0.0,
        "dead_codes": dead_codes(torch.cat(codes), model.codebook_size) if codes else 0,
    }


@torch.no_grad()
def probe_horizons(
    model: TransitionEncoder,
    clips: np.ndarray,
    groups: np.ndarray | None = None,
    lpips: ImageDistance | None = None,
    batch_size: int = 32,
    progress: Callable[[int], None] = lambda clips: None,
) -> dict[str, Any]:
    """Section 4.1's figures of ``model`` in eval mode on ``clips``, uint8 (6, N, S, S, 3): frames
    0, k, 2k, .. 5k of N clips.

    z_0^t is E(o_0, o_tk), z_t^0 the reverse, Z_t the sum of the t consecutive k-step latents
    E(o_ik, o_(i+1)k). Tables have keys "1" to "5" for t, in units of k:

    ``add[t]`` = mean ||z_0^t - Z_t|| (0 at t = 1 by construction) and ``rev[t]`` = mean ||z_0^t +
    z_t^0||, means over the clips. ``add_rel[t]``, ``rev_rel[t]``: the same over ``norms[t]`` = mean
    ||z_0^t||, the mean norm of the forward latents at that horizon. ``add_centred[t]``,
    ``rev_centred[t]``: relative errors of mean-subtracted latents. From each of z_0^t, z_t^0 and
    the k-step latents at each place in the clip its mean over the clips is taken, so that no
    constant is left in the residuals nor in the norms. ``psnr``, ``ssim``, ``lpips``: of D(o_0,
    z_0^t) against o_tk (direct); ``*_cum``: of D(o_0, Z_t); ``*_copy``: of o_0 itself;
    ``psnr_quantized``, ``psnr_cum_quantized``: of z_0^t and Z_t through the codebook. lpips tables
    are None without ``lpips``. ``psnr_k_shuffled``: of D(o_0, z of another clip of the same group)
    at t = 1. groups: (N,) whatever tells kinds of clips apart, such as their view, so that a
    shuffled z is wrong but not foreign. ``latent_norm``, ``constant_share``, ``effective_dims``,
    ``codebook_perplexity``, ``dead_codes``: of all 5 N k-step latents (the last two None while the
    codebook is not in use).

    progress is called with the number of clips done (each twice: encoded, decoded). Raises
    ValueError for clips of another shape.
    """
    if clips.ndim != 5 or clips.shape[0] != HORIZONS + 1 or clips.shape[1] < 2:
        raise ValueError(f"clips must be (6, N, S, S, 3) with N at least 2, not {clips.shape}")
    device = next(model.parameters()).device
    size = clips.shape[1]
    batches = [slice(first, min(first + batch_size, size)) for first in range(0, size, batch_size)]

    forward, backward, steps, codes = [], [], [], []
    for rows in batches:
        frames = [to_images(frame[rows], device) for frame in clips]
        forward.append(_encode(model, [frames[0]] * HORIZONS, frames[1:]))
        backward.append(_encode(model, frames[1:], [frames[0]] * HORIZONS))
        steps.append(torch.cat([forward[-1][:1], _encode(model, frames[1:-1], frames[2:])]))
        for z in steps[-1]:
            code = model.quantize(z)[1]
            if code is not None:
                codes.append(code.cpu())
        progress(rows.stop - rows.start)
    to_end, to_start, step = (
        torch.cat(parts, dim=1) for parts in (forward, backward, steps)
    )  # (5, N, K, D) each
    total = step.cumsum(dim=0)
    donors = _donors(np.zeros(size, int) if groups is None else groups)

    images: dict[str, np.ndarray] = {}
    for rows in batches:
        source = to_images(clips[0, rows], device)
        count = len(source)
        for t in range(HORIZONS):
            target = to_images(clips[t + 1, rows], device)
            direct, summed = to_end[t, rows], total[t, rows]
            shown = {"": model.decode(source, direct), "_copy": source}
            shown["_cum"] = model.decode(source, summed) if t else shown[""]
            for name, prediction in shown.items():
                _note(images, f"psnr{name}", t, count * psnr(prediction, target))
                _note(images, f"ssim{name}", t, count * ssim(prediction, target))
                if lpips is not None:
                    _note(images, f"lpips{name}", t, count * float(lpips(prediction, target)))
            direct_q, summed_q = model.quantize(direct)[0], model.quantize(summed)[0]
            _note(images, "psnr_quantized", t, count * psnr(model.decode(source, direct_q), target))
            _note(
                images,
                "psnr_cum_quantized",
                t,
                count * psnr(model.decode(source, summed_q), target),
            )
            if t == 0:
                _note(
                    images,
                    "psnr_k_shuffled",
                    t,
                    count * psnr(model.decode(source, step[0, donors[rows]]), target),
                )
        progress(count)

    every = step.flatten(0, 1).flatten(1).double().cpu()  # (5 N, F)
    tables = {name: values / size for name, values in images.items()}
    shuffled = float(tables.pop("psnr_k_shuffled")[0])
    return {
        **{name: _table(values) for name, values in tables.items()},
        **(
            {}
            if lpips is not None
            else {name: None for name in ("lpips", "lpips_cum", "lpips_copy")}
        ),
        **_algebra(*(z.flatten(2).double().cpu() for z in (to_end, to_start, total))),
        "psnr_k_shuffled": shuffled,
        "latent_norm": mean_norm(every),
        "constant_share": constant_share(every),
        "effective_dims": effective_dims(every),
        "codebook_perplexity": perplexity(torch.cat(codes), model.codebook_size) if codes else None,
        "dead_codes": dead_codes(torch.cat(codes), model.codebook_size) if codes else None,
    }


def _encode(model: TransitionEncoder, sources: list[Tensor], targets: list[Tensor]) -> Tensor:
    """Pairs of frame batches (B, 3, S, S) -> (pairs, B, K, D), on the model's device."""
    return torch.stack(
        [
            model.encode(source, target).float()
            for source, target in zip(sources, targets, strict=True)
        ]
    )


def _algebra(to_end: Tensor, to_start: Tensor, total: Tensor) -> dict[str, dict[str, float]]:
    """z_0^t, z_t^0 and Z_t, (5, N, F) each -> the tables of the additivity and reversal errors,
    raw, relative and centred.
    """
    additivity, reversal = to_end - total, to_end + to_start
    norm = to_end.norm(dim=2).mean(dim=1)  # (5,)

    def errors(residual: Tensor) -> Tensor:
        return residual.norm(dim=2).mean(dim=1)

    def centred(z: Tensor) -> Tensor:
        return z - z.mean(dim=1, keepdim=True)

    # The residuals are linear in the latents, so the mean residual is what mean-subtracted latents
    # lack.
    centred_norm = errors(centred(to_end)) + 1e-12
    tables = {
        "add": errors(additivity),
        "rev": errors(reversal),
        "norms": norm,
        "add_rel": errors(additivity) / (norm + 1e-12),
        "rev_rel": errors(reversal) / (norm + 1e-12),
        "add_centred": errors(centred(additivity)) / centred_norm,
        "rev_centred": errors(centred(reversal)) / centred_norm,
    }
    return {name: _table(values.numpy()) for name, values in tables.items()}


def _donors(groups: np.ndarray) -> np.ndarray:
    """For each clip another one of its group, (N,); of any group where it is alone in its own."""
    rng = np.random.default_rng(0)
    donors = np.empty(len(groups), np.int64)
    order = rng.permutation(len(groups))
    donors[order] = np.roll(order, 1)
    for group in np.unique(groups):
        members = rng.permutation(np.flatnonzero(groups == group))
        if len(members) > 1:
            donors[members] = np.roll(members, 1)
    return donors


def _note(sums: dict[str, Any], name: str, t: int, value: float) -> None:
    sums.setdefault(name, np.zeros(HORIZONS))[t] += value


def _table(values: np.ndarray) -> dict[str, float]:
    return {str(t + 1): float(value) for t, value in enumerate(values)}
