"""The joint policy: generates latent transitions and actions together (eq. 15), and is saved and
loaded as a checkpoint.

Letters as in ``alam_core.policy.network``; G given first actions of a chunk.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from alam_core.checkpoints import load_tensors, read_checkpoint, save_checkpoint
from alam_core.config import from_dict, to_dict
from alam_core.errors import UserError
from alam_core.policy.backbone import make_tokenizer
from alam_core.policy.config import PolicyConfig
from alam_core.policy.generation import Streams, integrate
from alam_core.policy.network import PolicyNetwork
from alam_core.policy.normalization import PolicyStats
from alam_core.policy.sequence import ACTION

KIND = "policy"
INTERVENTIONS = ("freeze", "block", "shuffle")


class JointPolicy(PolicyNetwork):
    """p(latents, actions | images, state, instruction).

    ``forward`` is the training loss; ``sample`` generates chunks, without autocast. Weights are
    float32 until ``to_bfloat16``.
    """

    @torch.inference_mode()
    def sample(
        self,
        images: Mapping[str, Tensor],
        state: Tensor,
        words: Tensor,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        steps: int | None = None,
        horizon: int | None = None,
        given: Tensor | None = None,
        intervention: str = "",
        known: Tensor | None = None,
        latents: Mapping[str, Tensor] | None = None,
    ) -> tuple[Tensor, Streams]:
        """Chunks for B observations (eq. 15): actions (B, H', A) in rad and m, and projected
        latents view -> (B, H', P).

        images, state, words: as in ``forward``. generator: random generator of the initial noise,
        or one for each observation. steps, horizon: number of denoising steps and chunk length H';
        None takes the configured value. given: the first actions of the chunks, (B, G, A) in rad
        and m. intervention on the latents (Appendix F): "freeze" keeps them at the initial noise;
        "block" masks the attention of actions to them; "shuffle" permutes in time the latents that
        the actions see (for cumulative latents: their sums). known: (B,) bool, whether the states
        are known; None: all are. latents: view -> finished latents (B, H', P) of all latent views;
        only the actions that lead to them are generated, which is what an inverse dynamics model
        does. Raises UserError as ``check_request`` does.
        """
        horizon = self.check_request(horizon, given, intervention)
        if latents is not None:
            self.check_infers_actions()
            horizon = next(iter(latents.values())).shape[1]
        shapes = {
            name: state.new_zeros(len(state), horizon, width)
            for name, width in self.stream_widths().items()
        }
        noise = self._noise(shapes, generator)
        order = None
        if intervention == "shuffle":  # one order for all observations
            first = generator[0] if isinstance(generator, Sequence) else generator
            order = torch.randperm(horizon, generator=first, device=state.device)
        noise |= latents or {}
        finished = latents is not None
        return self.generate(
            images, state, words, noise, steps, given, intervention, order, known, finished
        )

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
        known: Tensor | None = None,
        finished: bool = False,
    ) -> tuple[Tensor, Streams]:
        """``sample`` with its random numbers as arguments. No control flow depends on a tensor's
        values, so that a compiler or a CUDA graph can capture all of it.

        noise: modality -> (B, H', d_m). order: (H',), the permutation of "shuffle". finished:
        whether the latents in ``noise`` are finished ones. The others are as in ``sample``.
        """
        context = self.encode(images, state, words, known)
        fixed = None if given is None else self.normalise(given, state)
        horizon, done = noise[ACTION].shape[1], state.new_zeros(len(state), 1, 1)
        views, mask = self.layout.views, self.blocked_mask if intervention == "block" else self.mask

        def field(
            x: Streams, time: float, moving: tuple[str, ...], latents_done: bool = False
        ) -> Streams:
            """The prediction for the modalities ``moving``; latents_done: latents have tau 0."""
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
        if finished:
            x = integrate(self.process, lambda x, time: field(x, time, (ACTION,), True), x, steps)
        elif views and self.config.model.coupling == "two_stage":
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

    def check_request(
        self, horizon: int | None = None, given: Tensor | None = None, intervention: str = ""
    ) -> int:
        """The length H' of the chunks that ``sample`` generates with these arguments.

        Raises UserError for a longer horizon than the policy was trained on, for more given actions
        than ``model.given_steps``, for an unknown intervention, and for any intervention on a
        policy without latents.
        """
        model = self.config.model
        horizon = horizon or model.horizon
        if not 1 <= horizon <= model.horizon:
            raise UserError(
                f"chunks of {horizon} steps are requested, but this policy was trained on "
                f"{model.horizon}: choose 1 to {model.horizon}"
            )
        if given is not None and given.shape[1] > min(model.given_steps, horizon - 1):
            raise UserError(
                f"{given.shape[1]} first steps are given, but this policy continues from at most "
                f"{model.given_steps} (model.given_steps), fewer than a chunk of {horizon}"
            )
        if intervention and intervention not in INTERVENTIONS:
            raise UserError(
                f"there is no intervention '{intervention}'; there are: {', '.join(INTERVENTIONS)}"
            )
        if intervention and not self.layout.views:
            raise UserError(
                f"no intervention '{intervention}' is possible: this policy has no latents; choose "
                "one with latents"
            )
        return horizon

    def check_infers_actions(self) -> None:
        """Raises UserError unless the policy was trained on actions given finished latents."""
        model = self.config.model
        if not self.layout.views or (model.times == "common" and model.coupling == "joint"):
            raise UserError(
                "this policy cannot infer actions from latents: train one with latents and "
                "--model.times own"
            )

    def to_bfloat16(self) -> Self:
        """Convert the network's weights to bfloat16, which halves the memory at inference.

        Raises UserError if the backbone does not support it.
        """
        if not self.backbone.half_precision:
            raise UserError(
                "bfloat16 weights are for pi0, but this policy's backbone is "
                f"'{self.config.model.backbone}'"
            )
        for part in (self.backbone, self.inputs, self.outputs):
            part.to(torch.bfloat16)
        return self

    def load_pretrained(self, path: str | Path = "") -> str:
        """Load pretrained weights before training starts; returns a message about what was loaded,
        "" if nothing was.

        path: published weights of the backbone (pi0: see ``alam_core.policy.pi0.weights``), or
        their name on the model hub; "" loads only the pretrained weights of single parts, such as
        an image encoder. Raises UserError if they do not fit.
        """
        if not path:
            return self.backbone.load_pretrained()
        self.backbone.load_published(path, self.inputs[ACTION], self.outputs[ACTION])
        return f"{self.config.model.backbone}'s weights from '{path}'"

    def save_pretrained(self, folder: str | Path, card: str = "") -> Path:
        """Write the policy as a checkpoint (see ``alam_core.checkpoints``); ``card`` is its
        README.md.
        """
        config = {"kind": KIND, "policy": to_dict(self.config)}
        return save_checkpoint(
            folder, self, config, self.stats.to_dict(), card, self.tokenizer.files()
        )

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Self:
        """Read a checkpoint; the policy is in eval mode, on the CPU. Raises UserError, which names
        what is missing, malformed or does not fit.
        """
        checkpoint = read_checkpoint(folder, KIND)
        source = f"'{folder}/config.json'"
        if "policy" not in checkpoint.config:
            raise UserError(f"{source} has no entry 'policy'; copy the checkpoint again")
        config = from_dict(PolicyConfig, checkpoint.config["policy"], source)
        stats = PolicyStats.from_dict(checkpoint.stats, f"'{folder}/stats.json'")
        tokenizer = make_tokenizer(config.model, checkpoint.folder, from_checkpoint=True)
        policy = cls(config, stats, tokenizer)
        load_tensors(policy, checkpoint.tensors, folder)
        return policy.eval()
