"""The losses of stage 1 (eq. 5, 7, 8), each on the scales that ``LossConfig`` names.

Letters: B batch, K latent tokens, D numbers per token, S image side.
"""

import torch
from torch import Tensor

from alam_core.distributed import mean_over_ranks
from alam_core.latent_action.config import AlgebraScale, ReconstructionScale

EPSILON = 1e-8
# Whitening adds this share of the mean variance to the variance of each direction, so that
# directions with almost no variance do not dominate the loss.
SHRINKAGE = 0.01
# Mean squared change below which a pair of images counts as nearly still: a PSNR of 30 dB.
STILL = 1e-3


def additivity_residual(z_ab: Tensor, z_bc: Tensor, z_ac: Tensor) -> Tensor:
    """z_ac - (z_ab + z_bc): 0 under composition consistency (eq. 2, 7)."""
    return z_ac - (z_ab + z_bc)


def reversal_residual(z_ab: Tensor, z_ba: Tensor) -> Tensor:
    """z_ab + z_ba: 0 under reversal consistency (eq. 2, 7)."""
    return z_ab + z_ba


def latent_loss(residual: Tensor, reference: Tensor, form: AlgebraScale) -> Tensor:
    """Size of ``residual`` (B, K, D) on the scale ``form``, relative to the latents ``reference``
    (., K, D), any number of them.

    "paper": squared L2 norm over K and D, averaged over the batch. "relative": the same, divided by
    the mean squared L2 norm of the reference; gradients flow through both, so scaling z does not
    change it. "whitened": squared Mahalanobis length of a token under the reference's covariance
    (over batch and tokens, after subtracting each token's mean), divided by D and averaged. No
    invertible linear map of a token's numbers changes it, except through the shrinkage, whose
    gradient is stopped. A constant in z is penalised: it enters the residuals, not the covariance.

    If several processes share the batch, energy and covariance are those of the whole batch.
    """
    if form == "paper":
        return residual.square().sum(dim=(1, 2)).mean()
    if form == "relative":
        return residual.square().mean() / (mean_over_ranks(reference.square().mean()) + EPSILON)
    with torch.autocast(residual.device.type, enabled=False):
        centred = (reference - mean_over_ranks(reference.mean(dim=0))).flatten(0, 1)
        covariance = mean_over_ranks(centred.T @ centred / len(centred))  # (D, D)
        ridge = SHRINKAGE * covariance.diagonal().mean().detach() + EPSILON
        # No check for errors: latents that are not finite give a loss that is not finite, which
        # the training loop reports.
        factor, _ = torch.linalg.cholesky_ex(
            covariance + ridge * torch.eye(len(covariance), device=residual.device)
        )
        return (
            torch.linalg.solve_triangular(factor, residual.flatten(0, 1).T, upper=False)
            .square()
            .mean()
        )


def reconstruction_loss(
    prediction: Tensor, target: Tensor, source: Tensor, form: ReconstructionScale
) -> Tensor:
    """Pixel error of predictions (B, 3, S, S) on the scale ``form``.

    "paper": squared L2 norm over the image, averaged over the batch (eq. 8). "relative": each
    image's mean squared error divided by the error of copying its source, averaged over the batch;
    1 is as good as copying. Small changes thus count as much as large ones, for all data, views and
    gaps; only changes below ``STILL`` count less.
    """
    if form == "paper":
        return (prediction - target).square().sum(dim=(1, 2, 3)).mean()
    error, copied = (
        (image - target).square().mean(dim=(1, 2, 3)) for image in (prediction, source)
    )
    return (error / (copied + STILL).detach()).mean()
