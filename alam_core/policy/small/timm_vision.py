"""Any image model of timm as the small backbone's eyes: one network for all views, its last feature
map as tokens.

Letters: B batch, S image size in px, T tokens of a picture, d token width.
"""

import contextlib
from typing import Any

import torch
from torch import Tensor, nn

from alam_core.errors import UserError


class TimmVision(nn.Module):
    """Pictures of one view to tokens. The instruction does not reach it; the expert reads it beside
    the tokens.

    The network stays in eval mode while its weights are trained: batch norms keep the statistics
    they came with, which averages of weights and several processes would else have to agree on, and
    nothing is dropped.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, name: str, image_size: int, width: int, views: int) -> None:
        """name: of timm, such as "resnet18.a1_in1k". Raises UserError for one that timm does not
        have.
        """
        super().__init__()
        self.name, self.image_size = name, image_size
        self.model = _create(name, image_size, pretrained=False).eval()
        config = self.model.pretrained_cfg
        for key in ("mean", "std"):
            self.register_buffer(key, torch.tensor(config[key]).view(3, 1, 1), persistent=False)
        with torch.no_grad():
            tokens = self._tokens(torch.zeros(1, 3, image_size, image_size))
        self.token = nn.Linear(tokens.shape[-1], width)
        self.position = nn.Parameter(0.5 * torch.randn(views, tokens.shape[1], width))

    def forward(self, image: Tensor, view: int) -> Tensor:
        """image (B, 3, S, S) in [-1, 1] -> (B, T, d)."""
        return (
            self.token(self._tokens((0.5 * image + 0.5 - self.mean) / self.std))
            + self.position[view]
        )

    def train(self, mode: bool = True) -> "TimmVision":
        super().train(mode)
        self.model.eval()
        return self

    def load_pretrained(self) -> str:
        """Take timm's pretrained weights where they are or can be fetched. Returns in words what it
        has now.
        """
        try:
            loaded = _create(self.name, self.image_size, pretrained=True)
        except (
            OSError,
            RuntimeError,
            ValueError,
        ) as error:  # not published, not cached, no network
            return f"{self.name}: no pretrained weights ({str(error).splitlines()[0]}); it starts from scratch"
        self.model.load_state_dict(loaded.state_dict())
        return f"{self.name}: pretrained"

    def _tokens(self, image: Tensor) -> Tensor:
        """(B, T, F), whatever the order of the network's axes."""
        features = self.model.forward_features(image)
        if features.ndim == 4 and getattr(self.model, "output_fmt", "NCHW") == "NHWC":
            features = features.flatten(1, 2)
        elif features.ndim == 4:
            features = features.flatten(2).mT
        if features.ndim != 3 or features.shape[-1] != self.model.num_features:
            raise UserError(
                f"model.small.vision is '{self.name}', whose features {tuple(features.shape)} are no tokens: choose another"
            )
        return features


def _create(name: str, image_size: int, pretrained: bool) -> Any:
    import timm  # takes seconds, and most policies do without

    try:
        with contextlib.suppress(
            TypeError
        ):  # convolutional ones take any size and no such argument
            return timm.create_model(
                name, pretrained=pretrained, num_classes=0, global_pool="", img_size=image_size
            )
        return timm.create_model(name, pretrained=pretrained, num_classes=0, global_pool="")
    except AssertionError as error:  # some cannot do without their pooling
        raise UserError(
            f"model.small.vision is '{name}', which has no feature map to give ({error}): choose another"
        ) from None
    except RuntimeError as error:
        if timm.is_model(name):
            raise
        raise UserError(
            f"model.small.vision is '{name}', which timm does not have ({error}): see timm.list_models()"
        ) from None
