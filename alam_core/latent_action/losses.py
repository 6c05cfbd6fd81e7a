"""The losses of stage 1 (eq. 5, 7, 8) on their three scales. ``LossConfig`` says what the scales
are for.

Letters: B batch, K latent tokens, D numbers a token, S image side.
"""

import torch
from torch import Tensor

from alam_core.distributed import mean_over_ranks

EPSILON = 1e-8
# Whitening: this share of the mean variance is added to each direction's, so that near-empty
# directions do not rule the loss.
SHRINKAGE = 0.01
# Mean squared change of a nearly still pair of images: 30 dB.
STILL = 1e-3


def additivity_residual(z_ab: Tensor, z_bc: Tensor, z_ac: Tensor) -> Tensor:
    """z_ac - (z_ab + z_bc), zero where the latents compose (eq. 2, 7)."""
    return z_ac - (z_ab + z_bc)


def reversal_residual(z_ab: Tensor, z_ba: Tensor) -> Tensor:
    """z_ab + z_ba, zero where reversing time flips the sign (eq. 2, 7)."""
    return z_ab + z_ba


def latent_loss(residual: Tensor, reference: Tensor, form: str) -> Tensor:
    """Size of ``residual`` (B, K, D) on the scale ``form``, measured against the latents
    ``reference`` (any number, K, D).

    "paper": squared L2 norm of the whole latent, averaged over the batch. "relative": the same over
    the mean squared L2 norm of the reference. Gradients flow through both, so no scaling of z
    changes it. "whitened": squared length in units of the reference's covariance (over batch and
    tokens, each token's mean taken out), averaged over directions: no invertible linear map of a
    token's numbers changes it, but for the shrinkage, through which no gradient flows. A constant
    in z costs, since it is in the residuals and not in the covariance.

    Energy and covariance are those of the whole batch where it is spread over several processes.
    """
    if form == "paper":
        return residual.square().sum(dim=(1, 2)).mean()
    if form == "relative":
        return residual.square().mean() / (mean_over_ranks(reference.square().mean()) + EPSILON)
    with torch.autocast(residual.device.type, enabled=False):
        centred = (reference - mean_over_ranks(reference.mean(dim=0))).flatten(0, 1)
        covariance = mean_over_ranks(centred.T @ centred / len(centred))  # (D, D)
        ridge = SHRINKAGE * covariance.diagonal().mean().detach() + EPSILON
        # Unchecked: latents that are not finite make a loss that is not, which the training
        # reports, in place of an error from here.
        factor, _ = torch.linalg.cholesky_ex(
            covariance + ridge * torch.eye(len(covariance), device=residual.device)
        )
        return (
            torch.linalg.solve_triangular(factor, residual.flatten(0, 1).T, upper=False)
            .square()
            .mean()
        )


def reconstruction_loss(prediction: Tensor, target: Tensor, source: Tensor, form: str) -> Tensor:
    """Pixel error of predictions (B, 3, S, S) on the scale ``form``.

    "paper": squared L2 norm over the image, averaged over the batch (eq. 8). "relative": each
    image's mean squared error over that of copying its source, averaged over the batch; 1 is as
    good as copying. So small changes count as much as large ones, whatever the world, the view and
    the gap; below ``STILL`` a change counts less.
    """
    if form == "paper":
        return (prediction - target).square().sum(dim=(1, 2, 3)).mean()
    error, copied = (
        (image - target).square().mean(dim=(1, 2, 3)) for image in (prediction, source)
    )
    return (error / (copied + STILL).detach()).mean()
