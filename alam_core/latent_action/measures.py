"""What to watch about z and decoded frames, so that neither a constant, nor a shrunken, nor a
one-dimensional z goes unseen.

Letters: N samples, F numbers in a flattened transition, S image side.
"""

import torch
from pytorch_msssim import ssim as _ssim
from torch import Tensor


def constant_share(z: Tensor) -> float:
    """Share of the energy of z (N, F) that its mean vector holds: 1 for a constant, 0 for a centred
    z.
    """
    return float(z.mean(dim=0).square().sum() / (z.square().sum(dim=1).mean() + 1e-12))


def effective_dims(z: Tensor) -> float:
    """Participation ratio of the covariance of z (N, F): (sum of eigenvalues)^2 / sum of their
    squares, from 1 to F (0 for one sample).
    """
    centred = z.double() - z.double().mean(dim=0)
    gram = (
        centred @ centred.T if len(z) < z.shape[1] else centred.T @ centred
    )  # the same eigenvalues but for zeros
    return float(
        gram.diagonal().sum().square() / gram.square().sum().clamp_min(torch.finfo(gram.dtype).tiny)
    )


def mean_norm(z: Tensor) -> float:
    """Mean L2 norm of z (N, F)."""
    return float(z.norm(dim=1).mean())


def relative_error(residual: Tensor, z: Tensor) -> float:
    """Mean norm of the residuals (N, F) over the mean norm of z (N, F)."""
    return mean_norm(residual) / (mean_norm(z) + 1e-12)


def perplexity(codes: Tensor, size: int) -> float:
    """exp of the entropy of code usage: from 1 (one code) to ``size`` (all alike)."""
    share = torch.bincount(codes.flatten(), minlength=size).double() / codes.numel()
    return float(torch.exp(-torch.xlogy(share, share).sum()))


def dead_codes(codes: Tensor, size: int) -> int:
    """How many of the ``size`` codes are never chosen."""
    return int((torch.bincount(codes.flatten(), minlength=size) == 0).sum())


def psnr(prediction: Tensor, target: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of images (N, 3, S, S) in [0, 1], image by image, then
    averaged; at most 100 an image.
    """
    error = (prediction.clamp(0, 1) - target).square().mean(dim=(1, 2, 3)).clamp_min(1e-10)
    return float((-10 * torch.log10(error)).mean())


def ssim(prediction: Tensor, target: Tensor) -> float:
    """Structural similarity of images (N, 3, S, S) in [0, 1], Gaussian window of 11 px and
    deviation 1.5: 1 for equals. S at least 11.
    """
    return float(_ssim(prediction.clamp(0, 1), target, data_range=1.0, size_average=True))
