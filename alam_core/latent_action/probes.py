"""Metrics of a trained encoder on held-out video: reconstruction, algebraic errors (Section 4.1)
and statistics of z.

``probe`` is the short evaluation during training; ``probe_horizons`` is the paper's, over the
horizons k to 5k.

Letters: N clips, B triplets or clips of a batch, K latent tokens, D numbers per token, F = K * D, S
image side in px, t horizon in units of k.
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
    """Metrics of ``model``, in eval mode, on ``triplets`` a, b, c: uint8 (3, B, S, S, 3), b and c
    being k and 2k frames after a.

    PSNR in dB of frame b, predicted from a: ``psnr_k`` by the continuous z_ab, ``psnr_k_quantized``
    through the codebook, ``psnr_k_shuffled`` by another triplet's z_ab, ``copy_psnr_k`` by copying
    a. PSNR of frame c, predicted from a: ``psnr_2k`` by z_ac, ``psnr_sum_2k`` by z_ab + z_bc,
    ``copy_psnr_2k`` by copying a. ``add``, ``rev``: mean norms of the residuals of eq. 2;
    ``add_rel``, ``rev_rel``: the same, divided by the mean norm of z_ac and of z_ab.
    ``latent_norm``, ``constant_share``, ``effective_dims``: of z_ab (see ``measures``).
    ``codebook_perplexity``, ``dead_codes``: of its codes, 0 if the codebook is not in use.
    """
    device = next(model.parameters()).device
    latents: dict[str, list[Tensor]] = {"ab": [], "bc": [], "ac": [], "ba": []}
    codes, decibels = [], []
    size = triplets.shape[1]
    # Permuted, so that the shuffled z comes from a different episode. Batches have nearly equal
    # sizes, because a batch of one could not be shuffled.
    triplets = triplets[:, np.random.default_rng(0).permutation(size)]
    for rows in np.array_split(np.arange(size), -(-size // batch_size)):
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
        predictions = {
            "psnr_k": (model.decode(a, z["ab"]), b),
            "psnr_k_quantized": (model.decode(a, z_q), b),
            "psnr_k_shuffled": (model.decode(a, z["ab"].roll(1, 0)), b),
            "copy_psnr_k": (a, b),
            "psnr_2k": (model.decode(a, z["ac"]), c),
            "psnr_sum_2k": (model.decode(a, z["ab"] + z["bc"]), c),
            "copy_psnr_2k": (a, c),
        }
        decibels.append({name: len(a) * psnr(*images) for name, images in predictions.items()})
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
    """The metrics of Section 4.1 of ``model``, in eval mode, on ``clips``, uint8 (6, N, S, S, 3):
    frames 0, k, 2k, ... 5k of N clips.

    z_0^t is E(o_0, o_tk), z_t^0 is E(o_tk, o_0), and Z_t is the sum of the t consecutive k-step
    latents E(o_ik, o_(i+1)k). Tables have the keys "1" to "5", for t:

    - ``add``: mean over the clips of ||z_0^t - Z_t||, which is 0 at t = 1 by definition. ``rev``:
      mean of ||z_0^t + z_t^0||. ``norms``: mean of ||z_0^t||.
    - ``add_rel``, ``rev_rel``: the same, divided by ``norms``.
    - ``add_centred``, ``rev_centred``: relative errors of mean-subtracted latents. The mean over
      the clips is subtracted from z_0^t, from z_t^0 and from the k-step latents of each position in
      the clip, so that a constant in z contributes to neither residuals nor norms.
    - ``psnr``, ``ssim``, ``lpips``: of the direct prediction D(o_0, z_0^t) of o_tk; with ``_cum``:
      of D(o_0, Z_t); with ``_copy``: of o_0. The lpips tables are None without ``lpips``.
    - ``psnr_quantized``, ``psnr_cum_quantized``: of z_0^t and Z_t through the codebook.

    Single numbers: ``psnr_k_shuffled``, of D(o_0, z of another clip of the same group) at t = 1;
    ``latent_norm``, ``constant_share``, ``effective_dims``, ``codebook_perplexity``,
    ``dead_codes``, of all 5 N k-step latents, the last two None if the codebook is not in use.

    groups: (N,), labels such as the view; a shuffled z is taken from the same group. progress:
    called with the number of clips of a batch, after encoding and again after decoding it. Raises
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
            predictions = {"": model.decode(source, direct), "_copy": source}
            predictions["_cum"] = model.decode(source, summed) if t else predictions[""]
            for name, prediction in predictions.items():
                _add(images, f"psnr{name}", t, count * psnr(prediction, target))
                _add(images, f"ssim{name}", t, count * ssim(prediction, target))
                if lpips is not None:
                    _add(images, f"lpips{name}", t, count * float(lpips(prediction, target)))
            direct_q, summed_q = model.quantize(direct)[0], model.quantize(summed)[0]
            _add(images, "psnr_quantized", t, count * psnr(model.decode(source, direct_q), target))
            _add(
                images,
                "psnr_cum_quantized",
                t,
                count * psnr(model.decode(source, summed_q), target),
            )
            if t == 0:
                _add(
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
    """z_0^t, z_t^0 and Z_t, (5, N, F) each -> the tables of additivity and reversal errors: raw,
    relative and centred.
    """
    additivity, reversal = to_end - total, to_end + to_start
    norm = to_end.norm(dim=2).mean(dim=1)  # (5,)

    def errors(residual: Tensor) -> Tensor:
        return residual.norm(dim=2).mean(dim=1)

    def centred(z: Tensor) -> Tensor:
        return z - z.mean(dim=1, keepdim=True)

    # Residuals are linear in the latents: centring the latents centres the residuals.
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
    """For each clip, the index of another clip of its group, (N,); if it is alone in its group, of
    a clip of any group.
    """
    rng = np.random.default_rng(0)
    donors = np.empty(len(groups), np.int64)
    order = rng.permutation(len(groups))
    donors[order] = np.roll(order, 1)
    for group in np.unique(groups):
        members = rng.permutation(np.flatnonzero(groups == group))
        if len(members) > 1:
            donors[members] = np.roll(members, 1)
    return donors


def _add(sums: dict[str, Any], name: str, t: int, value: float) -> None:
    sums.setdefault(name, np.zeros(HORIZONS))[t] += value


def _table(values: np.ndarray) -> dict[str, float]:
    return {str(t + 1): float(value) for t, value in enumerate(values)}
