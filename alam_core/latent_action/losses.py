"""The losses of stage 1 (eq. 5, 7, 8) on their three scales. ``LossConfig`` says what the scales are for.

Letters: B batch, K latent tokens, D numbers a token, S image side.
"""

import torch
from torch import Tensor

EPSILON = 1e-8
# Whitening: this share of a token's mean energy is added to each direction's, so that near-empty directions do not rule the loss.
SHRINKAGE = 0.1


def additivity_residual(z_ab: Tensor, z_bc: Tensor, z_ac: Tensor) -> Tensor:
    """z_ac - (z_ab + z_bc), zero where the latents compose (eq. 2, 7)."""
    return z_ac - (z_ab + z_bc)


def reversal_residual(z_ab: Tensor, z_ba: Tensor) -> Tensor:
    """z_ab + z_ba, zero where reversing time flips the sign (eq. 2, 7)."""
    return z_ab + z_ba


def latent_loss(residual: Tensor, reference: Tensor, form: str) -> Tensor:
    """Size of ``residual`` (B, K, D) on the scale ``form``, measured against the latents ``reference`` (any number, K, D).

    "paper": squared L2 norm of the whole latent, averaged over the batch.
    "relative": the same over the mean squared L2 norm of the reference. Gradients flow through both, so no scaling of z changes it.
    "whitened": squared length in units of the reference's second moments, a token at a time, averaged over directions. No invertible
    linear map of a token's numbers changes it (but for the shrinkage).
    """
    if form == "paper":
        return residual.square().sum(dim=(1, 2)).mean()
    if form == "relative":
        return residual.square().mean() / (reference.square().mean() + EPSILON)
    moments = torch.einsum("bkd,bke->kde", reference, reference) / len(reference)  # (K, D, D)
    energy = moments.diagonal(dim1=1, dim2=2).mean(dim=1)  # (K,)
    identity = torch.eye(residual.shape[2], device=residual.device, dtype=residual.dtype)
    factor = torch.linalg.cholesky(moments + (SHRINKAGE * energy[:, None, None] + EPSILON) * identity)
    white = torch.linalg.solve_triangular(factor, residual.permute(1, 2, 0), upper=False)  # (K, D, B)
    return white.square().mean()


def reconstruction_loss(prediction: Tensor, target: Tensor, source: Tensor, form: str) -> Tensor:
    """Pixel error of predictions (B, 3, S, S) on the scale ``form``.

    "paper": squared L2 norm over the image, averaged over the batch (eq. 8).
    "relative": squared error over that of copying the source, both summed over the batch; 1 is as good as copying.
    """
    if form == "paper":
        return (prediction - target).square().sum(dim=(1, 2, 3)).mean()
    return (prediction - target).square().mean() / ((source - target).square().mean().detach() + 1e-5)
