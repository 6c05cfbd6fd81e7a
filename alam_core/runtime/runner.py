"""A trained policy, ready to act: one observation in, one chunk out.

Letters: S image size in px, H chunk length, A action width, D width of the encoder's transitions,
K number of denoising steps, G number of given steps, B number of observations in a batch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from alam_core.data.images import resize_images
from alam_core.errors import UserError
from alam_core.policy.instructions import KnownInstructions
from alam_core.policy.joint import JointPolicy
from alam_core.runtime.columns import match_columns
from alam_core.runtime.compiled import compile_generation
from alam_core.types import ActionChunk, Observation


@dataclass(frozen=True)
class PlanRequest:
    """What a chunk is computed from; see ``PolicyRunner.infer``."""

    observation: Observation
    generator: torch.Generator
    given: np.ndarray | None = None  # (G, A)


class PolicyRunner:
    """Checks observations and turns them into action chunks.

    ``views``: the cameras it needs. ``image_size``: S. ``horizon``: H. ``given_steps``: how many
    first steps of a chunk may be given. ``dt``: s between rows. ``state_names``, ``joint_names``:
    the columns of an observation's state and of a chunk's actions, those of the policy's data until
    ``fit_joints``. ``instructions``: those it was trained on, empty if unknown. ``latent_views``:
    views with generated transitions, none for a policy without latents. ``latent_shape``: (tokens,
    numbers per token) of a transition, D is their product. ``latent_encoder``: hash of the encoder
    of these transitions.
    """

    def __init__(
        self,
        policy: JointPolicy,
        device: torch.device | str = "cpu",
        denoising_steps: int | None = None,
        horizon: int | None = None,
        intervention: str = "",
        bfloat16: bool = False,
        compiled: bool = False,
    ) -> None:
        """device: "cpu" or "cuda". denoising_steps: K. horizon: H, at most the H that the policy
        was trained with. None takes the policy's own value for either. intervention: see
        ``JointPolicy.sample``. bfloat16: keep the weights in bfloat16, which halves their memory
        (pi0 only). compiled: compile the network; the first chunk takes a minute or more, the
        others are faster (see ``compile_generation``). Raises UserError for settings that the
        policy does not support.
        """
        _check_device(device)
        self.horizon = policy.check_request(horizon, intervention=intervention)
        if bfloat16:
            policy.to_bfloat16()  # before the move: the device never needs the memory of float32
        self.policy = policy.to(device).eval()
        if compiled:
            compile_generation(policy)
        self.device = torch.device(device)
        self.denoising_steps = denoising_steps
        self.intervention = intervention
        config = policy.config
        self.views = tuple(config.views)
        self.image_size = config.model.image_size
        self.given_steps = config.model.given_steps
        self.dt = config.dt
        self.state_dim = config.state_dim
        self.state_names = tuple(config.state_names)
        self.joint_names = tuple(config.joint_names)
        self.instructions = tuple(config.instructions)
        self._known = KnownInstructions(self.instructions)
        self._state_columns: np.ndarray | slice = slice(None)  # of an observation's state
        self._action_columns: np.ndarray | slice = slice(None)  # of the policy's actions
        self._given_columns: np.ndarray | slice = slice(None)  # of given actions
        self.latent_views = tuple(config.latent_views)
        self.latent_shape = tuple(config.latent_shape)
        self.latent_encoder = config.latent_encoder

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        device: torch.device | str = "cpu",
        threads: int | None = None,
        denoising_steps: int | None = None,
        horizon: int | None = None,
        intervention: str = "",
        bfloat16: bool = False,
        compiled: bool = False,
    ) -> "PolicyRunner":
        """Read a policy folder. ``threads``: number of torch's threads in this process; None leaves
        it unchanged. The other arguments are those of ``__init__``.

        Raises UserError naming what is missing or does not fit.
        """
        if threads is not None:
            torch.set_num_threads(threads)
        return cls(
            JointPolicy.from_pretrained(folder),
            device,
            denoising_steps,
            horizon,
            intervention,
            bfloat16,
            compiled,
        )

    def fit_joints(self, joints: Sequence[str], renamed: Mapping[str, str] | None = None) -> None:
        """From now on, take states and give actions in the order of a robot's ``joints``, whatever
        their order in the policy's data. renamed: name in these data -> joint.

        Raises UserError, and changes nothing, if the names do not fit (see ``match_columns``).
        """
        columns = match_columns(self.policy.config, joints, renamed)
        self.state_names = self.joint_names = tuple(joints)
        self.state_dim = len(joints)
        self._state_columns, self._action_columns = columns.state, columns.action
        self._given_columns = np.argsort(columns.action)

    def unknown(self, instruction: str) -> str:
        """One line that says what the policy was trained on, if it was not on ``instruction``. ""
        if it was, and if the checkpoint keeps no instructions.
        """
        return self._known.unknown(instruction)

    def infer(
        self,
        observation: Observation,
        generator: torch.Generator | int = 0,
        given: np.ndarray | None = None,
    ) -> ActionChunk:
        """The chunk for an observation; row i is due at ``observation.stamp + (i + 1) * dt``.

        An instruction that differs from one of ``instructions`` only in case, spaces or punctuation
        counts as that one. Images of another size are cropped to a square and resized as in
        training (``alam_core.data.images``). ``generator``, or the seed of a new one, determines
        the initial noise: same observation, same seed, same chunk. ``given``: the chunk's first
        actions (G, A), G at most ``given_steps``; the rest continues from them. ``latents`` of the
        chunk are the transitions between neighbouring steps (H, D), in the encoder's own space: the
        nearest vectors that project to the generated numbers. Components that the projection drops
        are at their mean.

        Raises UserError for a missing view, an image that is not uint8 RGB, a state of the wrong
        width or with NaN, an instruction that is empty or too long.
        """
        if isinstance(generator, int):
            generator = torch.Generator(self.device).manual_seed(generator)
        return self.infer_batch([PlanRequest(observation, generator, given)])[0]

    def infer_batch(self, requests: Sequence[PlanRequest]) -> list[ActionChunk]:
        """The chunks of B requests, computed in one call of the network: those that ``infer`` gives
        for each, up to rounding. The requests must have equally many given steps. Raises UserError
        as ``infer`` does.
        """
        observations = [request.observation for request in requests]
        images = {
            view: torch.cat([self._image(observation, view) for observation in observations])
            for view in self.views
        }  # (B, 3, S, S)
        wordings = [self._known.wording(o.instruction) or o.instruction for o in observations]
        given = [request.given for request in requests if request.given is not None]
        actions, streams = self.policy.sample(
            images,
            torch.cat([self._state(observation) for observation in observations]),
            self.policy.tokenizer(wordings).to(self.device),
            [request.generator for request in requests],
            self.denoising_steps,
            self.horizon,
            self._given(np.stack(given)) if given else None,
            self.intervention,
        )
        rows = actions.cpu().numpy()[..., self._action_columns]  # (B, H, A)
        return [
            ActionChunk(
                rows[i],
                self.dt,
                observation.stamp,
                {
                    view: self.policy.transitions(view, stream[i])
                    for view, stream in streams.items()
                },
                latent_dt=self.policy.config.latent_dt,
            )
            for i, observation in enumerate(observations)
        ]

    def unusual_states(self, observation: Observation) -> str:
        """Which states are outside the range of training; "" if none is. See
        ``PolicyStats.unusual_states``.
        """
        config = self.policy.config
        names = config.state_names or config.joint_names
        if len(names) != config.state_dim:
            names = [f"state {i}" for i in range(config.state_dim)]
        state = np.asarray(observation.state)[self._state_columns]
        return self.policy.stats.unusual_states(state, names)

    def _given(self, actions: np.ndarray) -> Tensor:
        """Given actions (B, G, A) in the order of the policy's columns."""
        columns = np.asarray(actions, np.float32)[..., self._given_columns]
        return torch.from_numpy(columns).to(self.device)

    def _image(self, observation: Observation, view: str) -> Tensor:
        """(1, 3, S, S) uint8."""
        if view not in observation.images:
            raise UserError(
                f"the observation has no image of view '{view}', which this policy needs; it has: "
                f"{_names(observation)}"
            )
        image = np.asarray(observation.images[view])
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3 or 0 in image.shape:
            raise UserError(
                f"the image of view '{view}' is {image.dtype} {image.shape}; it must be uint8 RGB "
                "(height, width, 3)"
            )
        small = np.ascontiguousarray(resize_images(image, self.image_size))
        return torch.from_numpy(small).to(self.device).permute(2, 0, 1)[None]

    def _state(self, observation: Observation) -> Tensor:
        """The policy's state (1, S) float32."""
        state = np.asarray(observation.state, dtype=np.float32)
        if state.shape != (self.state_dim,):
            raise UserError(
                f"the state has shape {state.shape}, this policy needs ({self.state_dim},)"
            )
        if not np.isfinite(state).all():
            raise UserError(
                "the state is not finite at index "
                f"{int(np.flatnonzero(~np.isfinite(state))[0])}: {state.tolist()}"
            )
        return torch.from_numpy(state[self._state_columns].copy()).to(self.device)[None]


def _check_device(device: torch.device | str) -> None:
    try:
        torch.empty(1, device=device)
    except (
        RuntimeError,
        AssertionError,
    ) as error:  # an unknown device, or one that torch cannot use
        raise UserError(
            f"the device '{device}' cannot be used ({str(error).splitlines()[0]}): choose cpu or "
            "cuda"
        ) from None


def _names(observation: Observation) -> str:
    return ", ".join(observation.images) or "none"
