"""The network of a joint policy and its training loss (Section 3.3, eq. 10 to 14).

Letters: B batch, G draws of (tau, noise) per observation, N = B * G, S image side in px, W words, H
chunk length, H' <= H steps of a shorter chunk, A action width, P width of a projected latent, D
numbers in a transition, d width of the backbone.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alam_core.errors import UserError
from alam_core.policy.backbone import Context, Tokenizer, build_backbone, make_tokenizer
from alam_core.policy.config import PolicyConfig
from alam_core.policy.generation import Streams, make_process, sample_noise
from alam_core.policy.normalization import PolicyStats
from alam_core.policy.sequence import ACTION, Layout


class PolicyNetwork(nn.Module):
    """The velocity fields of eq. 13, one per modality, given images, state and instruction.

    ``forward`` is the training loss. Weights are float32; training may run under autocast.
    """

    state_mean: Tensor
    state_std: Tensor
    state_limits: Tensor
    action_mean: Tensor
    action_std: Tensor
    relative: Tensor
    mask: Tensor
    blocked_mask: Tensor

    def __init__(
        self, config: PolicyConfig, stats: PolicyStats, tokenizer: Tokenizer | None = None
    ) -> None:
        """tokenizer: for the instructions; None takes that of ``make_tokenizer``. Raises UserError
        if ``config``, ``stats`` and the backbone do not fit together.
        """
        super().__init__()
        _check(config, stats)
        self.config, self.stats = config, stats
        self.layout = Layout(tuple(config.latent_views), config.model.horizon, config.model.mask)
        self.process = make_process(config.model.process)
        self.tokenizer = tokenizer or make_tokenizer(config.model)
        self.backbone = build_backbone(config)
        widths = self.stream_widths()
        learned = {} if config.model.projection == "pca" else stats.latents
        self.projections = nn.ModuleDict(
            {view: nn.Linear(len(learned[view].std), config.latent_width) for view in learned}
        )
        self.inputs = nn.ModuleDict(
            {name: self.backbone.input_head(width) for name, width in widths.items()}
        )
        self.outputs = nn.ModuleDict(
            {name: self.backbone.output_head(width) for name, width in widths.items()}
        )
        for name in ("state_mean", "state_std", "action_mean", "action_std"):
            self.register_buffer(name, torch.from_numpy(getattr(stats, name)), persistent=False)
        limits = torch.from_numpy(stats.state_limits())
        self.register_buffer("state_limits", limits, persistent=False)
        self.register_buffer("relative", torch.from_numpy(config.relative()), persistent=False)
        self.register_buffer("mask", self.layout.attention_mask(), persistent=False)
        self.register_buffer(
            "blocked_mask", self.layout.attention_mask(actions_see_latents=False), persistent=False
        )

    def stream_widths(self) -> dict[str, int]:
        """Modality -> width of one of its tokens, A or P, in the order of the sequence (eq. 11)."""
        return {
            name: len(self.config.joint_names) if name == ACTION else self.config.latent_width
            for name in self.layout.modalities
        }

    def target_widths(self) -> dict[str, int]:
        """Modality -> width of its training targets. It is that of a token, except for latents
        whose projection is learned: their targets are not projected yet.
        """
        return self.stream_widths() | {
            view: len(self.stats.latents[view].std) for view in self.projections
        }

    def encode(
        self,
        images: Mapping[str, Tensor],
        state: Tensor,
        words: Tensor,
        known: Tensor | None = None,
    ) -> Context:
        """The context of B observations, for any number of ``predict`` calls. Arguments as in
        ``forward``. States outside the range of training are clipped.
        """
        scaled = {view: images[view].float() / 127.5 - 1.0 for view in self.config.views}
        normal = (state.float() - self.state_mean) / self.state_std
        limited = normal.clamp(self.state_limits[0], self.state_limits[1])
        return self.backbone.encode(scaled, limited, words, known)

    def predict(
        self,
        x: Mapping[str, Tensor],
        tau: Mapping[str, Tensor],
        context: Context,
        mask: Tensor | None = None,
    ) -> Streams:
        """The network's prediction for every modality, (N, H', d_m): for flow matching, the
        velocity of eq. 13.

        x: modality -> (N, H', d_m). tau: modality -> flow time in [0, 1], (N, 1 or H', 1). context:
        of B observations. mask: (L, L) bool; None takes the layout's mask.
        """
        return self.predict_with_hidden(x, tau, context, (), mask)[0]

    def predict_with_hidden(
        self,
        x: Mapping[str, Tensor],
        tau: Mapping[str, Tensor],
        context: Context,
        layers: Sequence[int],
        mask: Tensor | None = None,
    ) -> tuple[Streams, list[Streams]]:
        """``predict``, and for each of ``layers`` of the backbone: modality -> hidden states of its
        tokens, (N, H', d). See ``Backbone.denoise_with_hidden``.
        """
        names = self.layout.modalities
        tokens = self.layout.pack({name: self.inputs[name](x[name], tau[name]) for name in names})
        times = (
            tau[ACTION]
            if all(tau[name] is tau[ACTION] for name in names)
            else _side_by_side([tau[name] for name in names])
        )
        length = tokens.shape[1]
        mask = (self.mask if mask is None else mask)[:length, :length]
        out, hidden = self.backbone.denoise_with_hidden(tokens, times, context, mask, layers)
        streams = self.layout.unpack(out)
        predicted = {name: self.outputs[name](stream) for name, stream in streams.items()}
        return predicted, [self.layout.unpack(state) for state in hidden]

    def draw(
        self, count: int, draws: int, generator: torch.Generator | None = None
    ) -> dict[str, Any]:
        """The random numbers of ``forward`` for B = ``count`` samples and G = ``draws`` each, on
        the CPU, so that they can be drawn together with the data.

        "tau": (B, G), flow times. "noise": modality -> (B, G, H, d_m). "planning": (B, G) bool,
        in two-stage generation, which draws train the latents. "given": (B, G) int, the number of
        first actions that are given. "latent_tau": (B, G), only if latents have times of their own.
        """
        model, shape = self.config.model, (count, draws)
        like = {
            name: torch.empty(*shape, model.horizon, width)
            for name, width in self.stream_widths().items()
        }
        drawn = {
            "tau": self.process.sample_time(count * draws, generator).view(shape),
            "noise": self._noise(like, generator),
            "planning": torch.rand(shape, generator=generator) < 0.5,
            "given": torch.randint(model.given_steps + 1, shape, generator=generator),
        }
        if model.times == "own":
            drawn["latent_tau"] = self.process.sample_time(count * draws, generator).view(shape)
        return drawn

    def forward(
        self,
        images: Mapping[str, Tensor],
        state: Tensor,
        words: Tensor,
        targets: Mapping[str, Tensor],
        drawn: Mapping[str, Any],
        weights: Mapping[str, float] | None = None,
        known: Tensor | None = None,
        shares: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """The losses of a batch: one per modality (eq. 13), and ``"total"``, their weighted sum
        (eq. 14).

        images: view -> (B, 3, S, S) uint8. state: (B, state_dim), in rad and m. words: output of
        the tokenizer. targets: "action" and latent views -> (B, H, .) of ``target_widths``,
        normalised. drawn: result of ``draw``. weights: modality -> lambda of eq. 14, 1 if not
        given. known: (B,) bool, whether a sample's state is known; None: all are. shares: modality
        -> (B,), the weight of each sample in that modality's loss, with a mean of 1 over the whole
        batch, and 0 for a sample without such a target: it enters as pure noise, so that it tells
        nothing. None: all 1. For a learned projection there is also "<view>_variance", the variance
        of the projected targets; it falls to 0 if the projection collapses.
        """
        context = self.encode(images, state, words, known)
        draws = drawn["tau"].shape[1]
        data = {
            name: self._project(name, targets[name]).repeat_interleave(draws, dim=0)
            for name in self.layout.modalities
        }
        tau, counted = self._training_times(drawn, shares or {})
        x, terms = {}, {}
        for name, value in data.items():
            x[name] = self.process.corrupt(value, drawn["noise"][name].flatten(0, 1), tau[name])
        predicted = self.predict(x, tau, context)
        for name, value in data.items():
            value = value.detach() if self.config.model.projection == "detached" else value
            target = self.process.target(value, drawn["noise"][name].flatten(0, 1), tau[name])
            error = self.process.error(predicted[name].float(), target)
            terms[name] = (error * counted[name]).mean()
        total = torch.stack(
            [(weights or {}).get(name, 1.0) * term for name, term in terms.items()]
        ).sum()
        variances = {
            f"{view}_variance": data[view].detach().float().var((0, 1)).mean()
            for view in self.projections
        }
        return {"total": total, **terms, **variances}

    def denormalise(self, targets: Tensor, state: Tensor) -> Tensor:
        """Normalised actions (B, H', A) -> set-points in rad and m, given the state (B, state_dim)
        at the start of the chunk.
        """
        length = targets.shape[1]
        return (
            targets * self.action_std[:length]
            + self.action_mean[:length]
            + self._origin(state, targets.shape[-1])
        )

    def normalise(self, actions: Tensor, state: Tensor) -> Tensor:
        """The inverse of ``denormalise``."""
        length = actions.shape[1]
        return (
            actions - self._origin(state, actions.shape[-1]) - self.action_mean[:length]
        ) / self.action_std[:length]

    def transitions(self, view: str, stream: Tensor) -> np.ndarray:
        """Generated latents (..., H', P) of a view -> transitions between neighbouring steps,
        (..., H', D), in the encoder's space: the nearest ones that project to them.
        """
        if view in self.projections:
            linear = self.projections[view]
            assert isinstance(linear, nn.Linear)
            stream = (stream - linear.bias) @ torch.linalg.pinv(linear.weight).mT
        return self.stats.latents[view].transitions(stream.detach().cpu().numpy())

    def _project(self, name: str, target: Tensor) -> Tensor:
        return self.projections[name](target) if name in self.projections else target

    def _origin(self, state: Tensor, width: int) -> Tensor:
        """(B, 1, A): the state's value for relative dimensions, 0 for absolute ones."""
        # If no dimension is relative, the state may be narrower than the action.
        joints = F.pad(state[:, :width], (0, max(0, width - state.shape[-1])))
        return torch.where(self.relative, joints, torch.zeros_like(joints))[:, None]

    def _noise(
        self,
        like: Mapping[str, Tensor],
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
    ) -> Streams:
        noise = sample_noise(like, generator)
        if self.config.model.shared_noise:
            noise |= {view: noise[self.layout.views[0]] for view in self.layout.views}
        return noise

    def _training_times(
        self, drawn: Mapping[str, Any], shares: Mapping[str, Tensor]
    ) -> tuple[Streams, Streams]:
        """Modality -> tau (N, 1 or H, 1), and the weight of each error, in the same shape.
        ``shares`` as in ``forward``.

        With two stages, each sequence trains, with probability one half, either the latents or the
        actions; in the latter case the latents are finished (tau 0). Both cases have weight 2,
        however many of each are in this batch: the mean is unbiased, and a sample's weight does not
        depend on the rest of the batch.
        """
        now = drawn["tau"].reshape(-1, 1, 1)
        tau = dict.fromkeys(self.layout.modalities, now)
        counted = dict.fromkeys(self.layout.modalities, torch.ones_like(now))
        if "latent_tau" in drawn:
            tau |= dict.fromkeys(self.layout.views, drawn["latent_tau"].reshape(-1, 1, 1))
        if self.layout.views and self.config.model.coupling == "two_stage":
            planning = drawn["planning"].reshape(-1, 1, 1).to(now.dtype)
            for view in self.layout.views:
                tau[view], counted[view] = now * planning, 2.0 * planning
            counted[ACTION] = 2.0 * (1.0 - planning)
        if self.config.model.given_steps:
            steps = torch.arange(self.config.model.horizon, device=now.device).view(1, -1, 1)
            free = (steps >= drawn["given"].reshape(-1, 1, 1)).to(now.dtype)
            tau[ACTION], counted[ACTION] = now * free, counted[ACTION] * free
        for name, share in shares.items():
            share = share.repeat_interleave(drawn["tau"].shape[1]).view(-1, 1, 1)
            tau[name] = torch.where(share > 0, tau[name], torch.ones_like(tau[name]))
            counted[name] = counted[name] * share
        return tau, counted


def _side_by_side(times: list[Tensor]) -> Tensor:
    """Times (N, 1 or H, 1) of each modality as (N, 1 or H, M)."""
    steps = max(tau.shape[1] for tau in times)
    return torch.cat([tau.expand(-1, steps, 1) for tau in times], dim=-1)


def _check(config: PolicyConfig, stats: PolicyStats) -> None:
    """Raises UserError if the normalisation does not have the shapes of the policy."""
    for view in config.latent_views:
        found = len(stats.latents[view].std) if view in stats.latents else 0
        if not found or (config.model.projection == "pca" and found != config.latent_width):
            raise UserError(
                f"the normalisation has no projection of view '{view}' to {config.latent_width} "
                "numbers"
            )
        for steps in (stats.latents[view].step_mean, stats.latents[view].step_std):
            if steps is not None and steps.shape != (config.model.horizon, found):
                raise UserError(
                    f"the normalisation of view '{view}' has steps of shape {steps.shape}, the "
                    f"policy needs {(config.model.horizon, found)}"
                )
    expected = {
        "action": (config.model.horizon, len(config.joint_names)),
        "state": (config.state_dim,),
    }
    for name, shape in expected.items():
        actual = getattr(stats, f"{name}_mean").shape
        if actual != shape:
            raise UserError(
                f"the normalisation of the {name} has shape {actual}, the policy needs {shape}"
            )
