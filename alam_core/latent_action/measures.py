"""Metrics of z and of decoded frames. They show whether z is constant, has shrunk or is
low-dimensional.

Letters: N samples, F numbers in a flattened transition, S image side.
"""

import torch
from pytorch_msssim import ssim as _ssim
from torch import Tensor


def constant_share(z: Tensor) -> float:
    """Share of the energy of z (N, F) in its mean vector, from 0 (centred) to 1 (constant)."""
    return float(z.mean(dim=0).square().sum() / (z.square().sum(dim=1).mean() + 1e-12))


def effective_dims(z: Tensor) -> float:
    """Participation ratio of the covariance of z (N, F): (sum of eigenvalues)^2 / sum of their
    squares, from 1 to F (0 for one sample).
    """
    centred = z.double() - z.double().mean(dim=0)
    # The smaller of the two Gram matrices; they have the same non-zero eigenvalues.
    gram = centred @ centred.T if len(z) < z.shape[1] else centred.T @ centred
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
    """exp of the entropy of code usage: from 1 (one code) to ``size`` (all codes equally often)."""
    share = torch.bincount(codes.flatten(), minlength=size).double() / codes.numel()
    return float(torch.exp(-torch.xlogy(share, share).sum()))


def dead_codes(codes: Tensor, size: int) -> int:
    """Number of the ``size`` codes that do not occur in ``codes``."""
    return int((torch.bincount(codes.flatten(), minlength=size) == 0).sum())


def psnr(prediction: Tensor, target: Tensor) -> float:
    """Peak signal-to-noise ratio of images (N, 3, S, S) in [0, 1], in dB, averaged over the images;
    at most 100 per image.
    """
    error = (prediction.clamp(0, 1) - target).square().mean(dim=(1, 2, 3)).clamp_min(1e-10)
    return float((-10 * torch.log10(error)).mean())


def ssim(prediction: Tensor, target: Tensor) -> float:
    """Structural similarity of images (N, 3, S, S) in [0, 1], with a Gaussian window of 11 px and
    standard deviation 1.5; 1 for equal images. S must be at least 11.
    """
    return float(_ssim(prediction.clamp(0, 1), target, data_range=1.0, size_average=True))
