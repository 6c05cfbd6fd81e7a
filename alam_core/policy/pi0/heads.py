"""The heads of one modality: into pi0's expert, together with the flow time, and out of it.

Letters: N sequences, H steps, d width of the expert.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alam_core.policy.generation import time_embedding

SHORTEST = 4e-3  # shortest period of the time embedding, in flow time


class InputHead(nn.Module):
    """pi0's action head: an MLP of the projected input and the embedding of the flow time.

    inputs: width of a step's input after padding with zeros.
    """

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.project = nn.Linear(inputs, width)
        self.mlp_in = nn.Linear(2 * width, width)
        self.mlp_out = nn.Linear(width, width)

    def forward(self, x: Tensor, tau: Tensor) -> Tensor:
        """x (N, H, at most ``inputs``), tau (N, 1 or H, 1) -> (N, H, d)."""
        x = F.pad(x, (0, self.project.in_features - x.shape[-1]))
        token = self.project(x.to(self.project.weight.dtype))
        time = (
            time_embedding(tau.squeeze(-1), token.shape[-1], SHORTEST)
            .to(token.dtype)
            .expand_as(token)
        )
        return self.mlp_out(F.silu(self.mlp_in(torch.cat([token, time], dim=-1))))


class OutputHead(nn.Linear):
    """A linear layer computed in float32, even under autocast; initialised to return 0.

    outputs: width of the layer, of which the first ``kept`` numbers are returned.
    """

    def __init__(self, width: int, outputs: int, kept: int) -> None:
        super().__init__(width, outputs)
        self.kept = kept
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens (N, H, d) -> (N, H, kept), float32."""
        with torch.autocast(tokens.device.type, enabled=False):
            return F.linear(tokens.float(), self.weight.float(), self.bias.float())[
                ..., : self.kept
            ]
