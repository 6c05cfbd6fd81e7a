"""Figures of a trained model on held-out triplets with both gaps k: reconstruction, algebra (Section 4.1) and the health of z.

Letters: B triplets, K latent tokens, D numbers a token, S image side.
"""

import numpy as np
import torch
from torch import Tensor

from alam_core.latent_action.inference import to_images
from alam_core.latent_action.losses import additivity_residual, reversal_residual
from alam_core.latent_action.measures import constant_share, effective_dims, perplexity, psnr, relative_error
from alam_core.latent_action.model import TransitionModel


@torch.no_grad()
def probe(model: TransitionModel, triplets: np.ndarray, batch_size: int = 32) -> dict[str, float]:
    """Figures of ``model`` in eval mode on ``triplets``, uint8 (3, B, S, S, 3), frames k and 2k after the first.

    psnr_*: dB against frame b from a: ``k`` from the continuous z, ``quantized`` through the codebook, ``shuffled`` with another
    triplet's z, ``copy`` the source itself. ``psnr_sum_2k``, ``psnr_2k``, ``copy_2k``: frame c from a by z_ab + z_bc, by z_ac, by copying.
    ``add_rel``, ``rev_rel``: mean norm of eq. 2's residuals over the mean norm of z_ac and z_ab.
    ``latent_norm``: mean norm of z_ab; ``constant_share``, ``effective_dims`` of z_ab over the triplets; ``codebook_perplexity``.
    """
    device = next(model.parameters()).device
    latents: dict[str, list[Tensor]] = {"ab": [], "bc": [], "ac": [], "ba": []}
    codes, decibels = [], []
    size = triplets.shape[1]
    triplets = triplets[:, np.random.default_rng(0).permutation(size)]  # so that a neighbour's z is from elsewhere
    for first in range(0, size, batch_size):
        a, b, c = (to_images(frames[first : first + batch_size], device) for frames in triplets)
        z = {"ab": model.encode(a, b), "bc": model.encode(b, c), "ac": model.encode(a, c), "ba": model.encode(b, a)}
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
    return {
        **{name: sum(part[name] for part in decibels) / size for name in decibels[0]},
        "add_rel": relative_error(additivity_residual(ab, bc, ac), ac),
        "rev_rel": relative_error(reversal_residual(ab, ba), ab),
        "latent_norm": float(ab.norm(dim=1).mean()),
        "constant_share": constant_share(ab),
        "effective_dims": effective_dims(ab),
        "codebook_perplexity": perplexity(torch.cat(codes), model.config.codebook_size) if codes else 0.0,
    }
