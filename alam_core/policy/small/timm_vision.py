"""An image model of timm as the small backbone's image encoder: one network for all views, whose
last feature map becomes tokens.

Letters: B batch, S image side in px, T tokens of an image, F features, d token width.
"""

import contextlib
from typing import Any

import torch
from torch import Tensor, nn

from alam_core.errors import UserError


class TimmVision(nn.Module):
    """Images of a view -> tokens. The tokens do not depend on the instruction; the action expert
    combines the two.

    The network stays in eval mode while its weights are trained. Batch norms keep their pretrained
    statistics, which would otherwise have to be synchronised between processes and with the moving
    average of the weights; dropout is inactive.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, name: str, image_size: int, width: int, views: int) -> None:
        """name: a model of timm, such as "resnet18.a1_in1k". Raises UserError for an unknown name
        and for a model without a feature map.
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
        """Load timm's pretrained weights, downloaded if necessary. Returns a message that says
        whether it worked.
        """
        try:
            loaded = _create(self.name, self.image_size, pretrained=True)
        except (
            OSError,
            RuntimeError,
            ValueError,
        ) as error:  # not published, not cached, no network
            reason = str(error).splitlines()[0]
            return f"{self.name}: no pretrained weights ({reason}); it starts from random weights"
        self.model.load_state_dict(loaded.state_dict())
        return f"{self.name}: pretrained"

    def _tokens(self, image: Tensor) -> Tensor:
        """The last feature map as (B, T, F), for networks of any axis order."""
        features = self.model.forward_features(image)
        if features.ndim == 4 and getattr(self.model, "output_fmt", "NCHW") == "NHWC":
            features = features.flatten(1, 2)
        elif features.ndim == 4:
            features = features.flatten(2).mT
        if features.ndim != 3 or features.shape[-1] != self.model.num_features:
            raise UserError(
                f"model.small.vision is '{self.name}', whose features {tuple(features.shape)} are "
                "not tokens: choose another"
            )
        return features


def _create(name: str, image_size: int, pretrained: bool) -> Any:
    import timm  # takes seconds, and most policies do not need it

    try:
        # Convolutional networks take any image size and have no such argument.
        with contextlib.suppress(TypeError):
            return timm.create_model(
                name, pretrained=pretrained, num_classes=0, global_pool="", img_size=image_size
            )
        return timm.create_model(name, pretrained=pretrained, num_classes=0, global_pool="")
    except AssertionError as error:  # networks that require their pooling
        raise UserError(
            f"model.small.vision is '{name}', which has no feature map ({error}): choose another"
        ) from None
    except RuntimeError as error:
        if timm.is_model(name):
            raise
        raise UserError(
            f"model.small.vision is '{name}', which timm does not have ({error}): see "
            "timm.list_models()"
        ) from None
