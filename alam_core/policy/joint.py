"""The joint policy: context once, then latent transitions and actions denoised together (Sec. 3.3).

Letters: B batch, G draws of (tau, noise) per observation, N = B * G, S image size in px, W words, H
chunk length, A action width, P width of a projected latent, D numbers in a transition, d width of
the backbone.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alam_core.checkpoints import checkpoint_folder, load_tensors, read_checkpoint, save_checkpoint
from alam_core.config import from_dict, to_dict
from alam_core.errors import UserError
from alam_core.policy.backbone import Backbone, Context, Tokenizer
from alam_core.policy.config import ModelConfig, PolicyConfig
from alam_core.policy.generation import Streams, integrate, make_process, sample_noise
from alam_core.policy.normalization import PolicyStats
from alam_core.policy.sequence import ACTION, Layout
from alam_core.policy.small import WORDS, SmallBackbone, WordTokenizer

INTERVENTIONS = ("freeze", "block", "shuffle")


class JointPolicy(nn.Module):
    """p(latents, actions | images, state, instruction).

    ``forward`` is the training loss; ``sample`` acts. Weights are float32 until ``to_bfloat16``;
    training may autocast, acting does not.
    """

    state_mean: Tensor
    state_std: Tensor
    action_mean: Tensor
    action_std: Tensor
    relative: Tensor
    mask: Tensor
    blocked_mask: Tensor

    def __init__(
        self, config: PolicyConfig, stats: PolicyStats, tokenizer: Tokenizer | None = None
    ) -> None:
        """tokenizer: what reads instructions, ``make_tokenizer``'s if None. Raises UserError where
        things do not fit together.
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
        self.register_buffer("relative", torch.from_numpy(config.relative()), persistent=False)
        self.register_buffer("mask", self.layout.attention_mask(), persistent=False)
        self.register_buffer(
            "blocked_mask", self.layout.attention_mask(actions_see_latents=False), persistent=False
        )

    def stream_widths(self) -> dict[str, int]:
        """Modality -> width of one of its tokens, in the order of the sequence."""
        return {
            name: len(self.config.joint_names) if name == ACTION else self.config.latent_width
            for name in self.layout.modalities
        }

    def target_widths(self) -> dict[str, int]:
        """Modality -> width of its targets in training: transitions are wider than tokens where
        their projection is learned.
        """
        return self.stream_widths() | {
            view: len(self.stats.latents[view].std) for view in self.projections
        }

    def encode(self, images: Mapping[str, Tensor], state: Tensor, words: Tensor) -> Context:
        """The context of observations, ready for any number of ``predict`` calls. Arguments as in
        ``forward``.
        """
        scaled = {view: images[view].float() / 127.5 - 1.0 for view in self.config.views}
        normal = (state.float() - self.state_mean) / self.state_std
        return self.backbone.encode(scaled, normal, words)

    def predict(
        self,
        x: Mapping[str, Tensor],
        tau: Mapping[str, Tensor],
        context: Context,
        mask: Tensor | None = None,
    ) -> Streams:
        """What the process asks of the network, of every modality.

        x: modality -> (N, H', d_m). tau: modality -> (N, 1 or H', 1). context: of B observations.
        mask: (L, L), the layout's own if None.
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
        streams = self.layout.unpack(self.backbone.denoise(tokens, times, context, mask))
        return {name: self.outputs[name](stream) for name, stream in streams.items()}

    def draw(
        self, count: int, draws: int, generator: torch.Generator | None = None
    ) -> dict[str, Any]:
        """What chance decides in ``forward`` for ``count`` samples and G draws each, on the CPU, so
        that it can be made with the data.

        "tau": (B, G). "noise": modality -> (B, G, H, d_m). "planning": (B, G) bool, which draws
        train the latents where generation has two stages. "given": (B, G) int, how many first steps
        are given.
        """
        model, shape = self.config.model, (count, draws)
        like = {
            name: torch.empty(*shape, model.horizon, width)
            for name, width in self.stream_widths().items()
        }
        return {
            "tau": self.process.sample_time(count * draws, generator).view(shape),
            "noise": self._noise(like, generator),
            "planning": torch.rand(shape, generator=generator) < 0.5,
            "given": torch.randint(model.given_steps + 1, shape, generator=generator),
        }

    def forward(
        self,
        images: Mapping[str, Tensor],
        state: Tensor,
        words: Tensor,
        targets: Mapping[str, Tensor],
        drawn: Mapping[str, Any],
        weights: Mapping[str, float] | None = None,
    ) -> dict[str, Tensor]:
        """The losses of a batch (eq. 13, 14): ``"total"`` and one a modality.

        images: view -> (B, 3, S, S) uint8. state: (B, state_dim), raw. words: of the tokenizer.
        targets: "action" and latent views -> (B, H, .) of ``target_widths``, normalised. drawn: of
        ``draw``, G for each observation. weights: modality -> lambda, 1 where not given. A learned
        projection's targets also have "<view>_variance", which falls to 0 where it collapses.
        """
        context = self.encode(images, state, words)
        draws = drawn["tau"].shape[1]
        data = {
            name: self._project(name, targets[name]).repeat_interleave(draws, dim=0)
            for name in self.layout.modalities
        }
        tau, counted = self._training_times(drawn)
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

    @torch.inference_mode()
    def sample(
        self,
        images: Mapping[str, Tensor],
        state: Tensor,
        words: Tensor,
        generator: torch.Generator | None = None,
        steps: int | None = None,
        horizon: int | None = None,
        given: Tensor | None = None,
        intervention: str = "",
    ) -> tuple[Tensor, Streams]:
        """Chunks for B observations (eq. 15): actions (B, H', A) in rad and m, and projected
        latents view -> (B, H', P).

        generator: of the initial noise. steps, horizon: denoising steps and chunk length H', the
        configured ones if None. given: the first actions of the chunks (B, G, A) in rad and m.
        intervention on the latents (Appendix F): "freeze" them at noise, "block" the actions' sight
        of them, or "shuffle" in time what the actions see (of cumulative latents: the sums). Raises
        UserError for what the policy was not made for.
        """
        horizon = self.check_request(horizon, given, intervention)
        shapes = {
            name: state.new_zeros(len(state), horizon, width)
            for name, width in self.stream_widths().items()
        }
        noise = self._noise(shapes, generator)
        order = (
            torch.randperm(horizon, generator=generator, device=state.device)
            if intervention == "shuffle"
            else None
        )
        return self.generate(images, state, words, noise, steps, given, intervention, order)

    def generate(
        self,
        images: Mapping[str, Tensor],
        state: Tensor,
        words: Tensor,
        noise: Streams,
        steps: int | None = None,
        given: Tensor | None = None,
        intervention: str = "",
        order: Tensor | None = None,
    ) -> tuple[Tensor, Streams]:
        """What ``sample`` does once chance has decided: a function of tensors that never looks at
        one, so that a compiler or a CUDA graph can take all of it.

        noise: modality -> (B, H', d_m). order: (H',) in which the latents are shuffled. The others
        as in ``sample``.
        """
        context = self.encode(images, state, words)
        fixed = None if given is None else self._normalise(given, state)
        horizon, done = noise[ACTION].shape[1], state.new_zeros(len(state), 1, 1)
        views, mask = self.layout.views, self.blocked_mask if intervention == "block" else self.mask

        def field(
            x: Streams, time: float, moving: tuple[str, ...], latents_done: bool = False
        ) -> Streams:
            now = torch.full_like(done, time)
            tau = {
                name: done if latents_done and name != ACTION else now
                for name in self.layout.modalities
            }
            if fixed is not None:
                x = x | {ACTION: torch.cat([fixed, x[ACTION][:, fixed.shape[1] :]], dim=1)}
                tau[ACTION] = torch.cat(
                    [
                        done.expand(-1, fixed.shape[1], 1),
                        now.expand(-1, horizon - fixed.shape[1], 1),
                    ],
                    dim=1,
                )
            predicted = self.predict(x, tau, context, mask)
            if order is not None and ACTION in moving:
                predicted[ACTION] = self.predict(
                    x | {view: x[view][:, order] for view in views}, tau, context
                )[ACTION]
            return {name: predicted[name] for name in moving}

        steps = steps or self.config.model.denoising_steps
        moving = (ACTION,) if intervention == "freeze" else self.layout.modalities
        x = noise
        if views and self.config.model.coupling == "two_stage":
            if intervention != "freeze":
                x = integrate(self.process, lambda x, time: field(x, time, views), x, steps)
            x = integrate(self.process, lambda x, time: field(x, time, (ACTION,), True), x, steps)
        else:
            x = integrate(self.process, lambda x, time: field(x, time, moving), x, steps)
        actions = (
            x[ACTION]
            if fixed is None
            else torch.cat([fixed, x[ACTION][:, fixed.shape[1] :]], dim=1)
        )
        return self.denormalise(actions, state), {view: x[view] for view in views}

    def to_bfloat16(self) -> "JointPolicy":
        """Keep the network's weights in bfloat16: half the memory, for acting. Raises UserError for
        a backbone that is not made for it.
        """
        if self.config.model.backbone != "pi0":
            raise UserError(
                f"bfloat16 weights are for pi0, this policy is '{self.config.model.backbone}'"
            )
        for part in (self.backbone, self.inputs, self.outputs):
            part.to(torch.bfloat16)
        return self

    def denormalise(self, targets: Tensor, state: Tensor) -> Tensor:
        """Normalised targets (B, H', A) to set-points in rad and m, given the state (B, S) the
        chunk starts from.
        """
        length = targets.shape[1]
        return (
            targets * self.action_std[:length]
            + self.action_mean[:length]
            + self._origin(state, targets.shape[-1])
        )

    def transitions(self, view: str, stream: Tensor) -> np.ndarray:
        """Generated latents (..., H', P) as the nearest transitions between neighbouring steps,
        (..., H', D), in the encoder's space.
        """
        if view in self.projections:
            linear = self.projections[view]
            assert isinstance(linear, nn.Linear)
            stream = (stream - linear.bias) @ torch.linalg.pinv(linear.weight).mT
        return self.stats.latents[view].transitions(stream.detach().cpu().numpy())

    def _project(self, name: str, target: Tensor) -> Tensor:
        return self.projections[name](target) if name in self.projections else target

    def _normalise(self, actions: Tensor, state: Tensor) -> Tensor:
        """The inverse of ``denormalise``."""
        length = actions.shape[1]
        return (
            actions - self._origin(state, actions.shape[-1]) - self.action_mean[:length]
        ) / self.action_std[:length]

    def _origin(self, state: Tensor, width: int) -> Tensor:
        """(B, 1, A): what the relative dimensions are differences to; 0 for the others."""
        joints = F.pad(
            state[:, :width], (0, max(0, width - state.shape[-1]))
        )  # a state may be narrower where nothing is relative
        return torch.where(self.relative, joints, torch.zeros_like(joints))[:, None]

    def _noise(
        self, like: Mapping[str, Tensor], generator: torch.Generator | None = None
    ) -> Streams:
        noise = sample_noise(like, generator)
        if self.config.model.shared_noise:
            noise |= {view: noise[self.layout.views[0]] for view in self.layout.views}
        return noise

    def _training_times(self, drawn: Mapping[str, Any]) -> tuple[Streams, Streams]:
        """Modality -> tau (N, 1 or H, 1), and how much each of its errors counts, in that shape.

        Two stages: half of the sequences train the latents; in the others they are finished (tau
        0), and the actions are trained. Each half counts twice, whatever its size in this batch:
        that is so on average, and does not depend on who shares the batch.
        """
        now = drawn["tau"].reshape(-1, 1, 1)
        tau = dict.fromkeys(self.layout.modalities, now)
        counted = dict.fromkeys(self.layout.modalities, torch.ones_like(now))
        if self.layout.views and self.config.model.coupling == "two_stage":
            planning = drawn["planning"].reshape(-1, 1, 1).to(now.dtype)
            for view in self.layout.views:
                tau[view], counted[view] = now * planning, 2.0 * planning
            counted[ACTION] = 2.0 * (1.0 - planning)
        if self.config.model.given_steps:
            steps = torch.arange(self.config.model.horizon, device=now.device).view(1, -1, 1)
            free = (steps >= drawn["given"].reshape(-1, 1, 1)).to(now.dtype)
            tau[ACTION], counted[ACTION] = now * free, counted[ACTION] * free
        return tau, counted

    def check_request(
        self, horizon: int | None = None, given: Tensor | None = None, intervention: str = ""
    ) -> int:
        """The horizon of the chunks that ``sample`` would make. Raises UserError for what the
        policy was not made for.
        """
        model = self.config.model
        horizon = horizon or model.horizon
        if not 1 <= horizon <= model.horizon:
            raise UserError(
                f"chunks of {horizon} steps are asked for, this policy was trained on {model.horizon}: choose 1 to {model.horizon}"
            )
        if given is not None and given.shape[1] > min(model.given_steps, horizon - 1):
            raise UserError(
                f"{given.shape[1]} first steps are given, this policy was trained to go on from at most {model.given_steps} "
                f"(model.given_steps) of a chunk of {horizon}"
            )
        if intervention and (intervention not in INTERVENTIONS or not self.layout.views):
            raise UserError(
                f"no intervention '{intervention}' on this policy: {', '.join(INTERVENTIONS)}, for a policy with latents"
            )
        return horizon

    def load_pretrained(self, path: str | Path = "") -> str:
        """Put pretrained weights into the parts that there are some for, before training begins; in
        words what was found, "" for nothing.

        path: published pi0 weights (see ``alam_core.policy.pi0.weights``), or their name on the
        model hub. Raises UserError where they do not fit.
        """
        if not path:
            return self.backbone.load_pretrained()
        if self.config.model.backbone != "pi0":
            raise UserError(
                f"'{path}' is for pi0, this policy is '{self.config.model.backbone}': give --model.backbone pi0"
            )
        from alam_core.policy.pi0.backbone import Pi0Backbone
        from alam_core.policy.pi0.weights import PUBLISHED, load_pi0

        assert isinstance(self.backbone, Pi0Backbone)
        load_pi0(
            checkpoint_folder(path, PUBLISHED),
            self.backbone,
            self.inputs[ACTION],
            self.outputs[ACTION],
        )
        return f"pi0's weights from '{path}'"

    def save_pretrained(self, folder: str | Path, card: str = "") -> Path:
        """Write the policy as a checkpoint folder (see ``alam_core.checkpoints``)."""
        config = {"kind": "policy", "policy": to_dict(self.config)}
        return save_checkpoint(
            folder, self, config, self.stats.to_dict(), card, self.tokenizer.files()
        )

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> "JointPolicy":
        """Read a policy from its folder, in eval mode. Raises UserError naming what is missing,
        malformed or does not fit.
        """
        checkpoint = read_checkpoint(folder, "policy")
        source = f"'{folder}/config.json'"
        if "policy" not in checkpoint.config:
            raise UserError(
                f"{source} has no entry 'policy'; restore the file from where the checkpoint came"
            )
        config = from_dict(PolicyConfig, checkpoint.config["policy"], source)
        stats = PolicyStats.from_dict(checkpoint.stats, f"'{folder}/stats.json'")
        policy = cls(config, stats, make_tokenizer(config.model, checkpoint.folder, kept=True))
        load_tensors(policy, checkpoint.tensors, folder)
        return policy.eval()


def make_tokenizer(model: ModelConfig, folder: str | Path = "", kept: bool = False) -> Tokenizer:
    """What reads instructions for a policy of this configuration. folder: of the policy's
    checkpoint (``kept``), or of published pi0 weights.

    Raises UserError where what it needs is not to be found.
    """
    if model.backbone == "pi0":
        from alam_core.policy.pi0.text import (
            Pi0Tokenizer,  # loads transformers' relatives, which the small backbone does without
        )

        return Pi0Tokenizer.from_folder(folder, model.pi0.max_words)
    if model.small.text == WORDS:
        return WordTokenizer(model.small.vocabulary, model.small.max_words)
    from alam_core.policy.small.sentence import SentenceEncoder  # loads transformers

    if kept:
        encoder = SentenceEncoder.from_checkpoint(folder, model.small.max_words)
    else:
        encoder = SentenceEncoder.from_pretrained(model.small.text, model.small.max_words)
    if encoder.width != model.small.text_width:
        raise UserError(
            f"'{model.small.text}' makes vectors of {encoder.width} numbers: give --model.small.text_width {encoder.width}"
        )
    return encoder


def build_backbone(config: PolicyConfig) -> Backbone:
    """The backbone that a policy's configuration asks for, with random weights."""
    model = config.model
    if model.backbone == "pi0":
        from alam_core.policy.pi0.backbone import Pi0Backbone  # loads transformers

        return Pi0Backbone(model.pi0, config.views, model.image_size, config.state_dim)
    return SmallBackbone(
        model.small,
        config.views,
        model.image_size,
        config.state_dim,
        model.horizon,
        len(config.latent_views) + 1,
    )


def _side_by_side(times: list[Tensor]) -> Tensor:
    """Times (N, 1 or H, 1) of each modality as (N, 1 or H, M)."""
    steps = max(tau.shape[1] for tau in times)
    return torch.cat([tau.expand(-1, steps, 1) for tau in times], dim=-1)


def _check(config: PolicyConfig, stats: PolicyStats) -> None:
    for view in config.latent_views:
        found = len(stats.latents[view].std) if view in stats.latents else 0
        if not found or (config.model.projection == "pca" and found != config.latent_width):
            raise UserError(
                f"the normalisation has no projection of view '{view}' to {config.latent_width} numbers"
            )
        for steps in (stats.latents[view].step_mean, stats.latents[view].step_std):
            if steps is not None and steps.shape != (config.model.horizon, found):
                raise UserError(
                    f"the normalisation of view '{view}' has steps of shape {steps.shape}, the policy needs {(config.model.horizon, found)}"
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
