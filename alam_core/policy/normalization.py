"""Normalisation for policies: states and action chunks are scaled by their variance or quantiles,
latent transitions are projected to a few standardised numbers.

Letters: N samples, T steps of an episode, S state width, H chunk length, H' <= H steps of a shorter
chunk, A action width, D numbers in a transition, P projected width.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from alam_core.errors import UserError
from alam_core.types import STD_FLOOR

STATE_MARGIN = 1.0
"""How far beyond the range of training a normalised state may lie before it is clipped."""
UNUSUAL = 10.0  # standard deviations from the mean


@dataclass
class LatentProjection:
    """The fixed linear map from a frozen encoder's transitions z to a policy's targets: p = (z -
    mean) @ components.T / std.

    mean (D,). components (P, D), with orthonormal rows. std (P,): standard deviation along each
    component, at least a hundredth of the first one's, so that directions that z hardly uses are
    not amplified to unit scale; or the same scale for all components, which keeps their
    proportions. variance_share: part of the variance of z that the P components explain, 0 to 1.

    The targets of a chunk are the p of its steps. If step_mean and step_std (H, P) are set, they
    are the standardised sums of p from the first step on: as latents are additive (eq. 2), such a
    sum is the transition from the chunk's first frame to that step's.
    """

    mean: np.ndarray
    components: np.ndarray
    std: np.ndarray
    variance_share: float
    step_mean: np.ndarray | None = None
    step_std: np.ndarray | None = None

    @classmethod
    def fit(cls, z: np.ndarray, width: int, one_scale: bool = False) -> "LatentProjection":
        """The projection to the ``width`` = P first principal components of z (N, D).

        one_scale: divide all components by the root of their mean variance instead of each by its
        own standard deviation. Raises UserError if D < P, and if z hardly varies (a collapsed
        encoder).
        """
        z = z.astype(np.float64)
        mean = z.mean(0)
        variances, vectors = np.linalg.eigh(np.cov(z - mean, rowvar=False))
        order = np.argsort(variances)[::-1][:width]
        if len(order) < width:
            raise UserError(
                f"latent transitions of width {z.shape[1]} cannot be projected to {width} numbers: "
                "lower latent_width"
            )
        if variances[order[0]] <= 1e-12:
            raise UserError(
                "the transition encoder gives the same latent for every frame pair: it has "
                "collapsed, pretrain it again"
            )
        std = np.sqrt(np.maximum(variances[order], 1e-4 * variances[order[0]]))
        if one_scale:
            std = np.full_like(std, np.sqrt(variances[order].clip(0).mean()))
        share = float(variances[order].sum() / variances.sum())
        return cls(
            mean.astype(np.float32),
            vectors[:, order].T.astype(np.float32),
            std.astype(np.float32),
            share,
        )

    def cumulative(self, chunks: np.ndarray, one_scale: bool = False) -> "LatentProjection":
        """The same projection with sums of p as targets; step_mean and step_std are fitted on
        ``chunks`` of p, (N, H, P). one_scale: as in ``fit``.
        """
        sums = chunks.astype(np.float64).cumsum(1)
        variance = sums.var(0)
        if one_scale:
            variance = np.broadcast_to(variance.mean(1, keepdims=True), variance.shape)
        scale = np.sqrt(np.maximum(variance, 1e-4 * variance.max()))
        return replace(
            self, step_mean=sums.mean(0).astype(np.float32), step_std=scale.astype(np.float32)
        )

    def project(self, z: np.ndarray) -> np.ndarray:
        """z (..., D) -> p (..., P): mean 0 on the training data; variance 1 unless one_scale."""
        return ((z - self.mean) @ self.components.T / self.std).astype(np.float32)

    def targets(self, p: np.ndarray) -> np.ndarray:
        """Chunks of p (..., H, P) -> a policy's targets, (..., H, P)."""
        if self.step_mean is None or self.step_std is None:
            return p
        return ((p.cumsum(-2) - self.step_mean) / self.step_std).astype(np.float32)

    def transitions(self, targets: np.ndarray) -> np.ndarray:
        """A chunk's targets (..., H', P) -> transitions between neighbouring steps (..., H', D), in
        the encoder's space: the nearest ones to ``mean`` that project to the targets.
        """
        p = targets
        if self.step_mean is not None and self.step_std is not None:
            length = targets.shape[-2]
            p = np.diff(
                targets * self.step_std[:length] + self.step_mean[:length], axis=-2, prepend=0.0
            )
        return ((p * self.std) @ self.components + self.mean).astype(np.float32)


@dataclass
class PolicyStats:
    """The normalisation of a policy's data. All arrays are float32.

    state_mean, state_std: (S,). action_mean, action_std: (H, A), of the targets at each step of the
    chunk; relative dimensions are differences to the state at the start of the chunk. With
    quantiles, mean and std are their midpoint and half their distance. latents: view -> its
    projection. state_range: (2, S), the smallest and largest states of the training data; infinite
    for checkpoints that were written without it.
    """

    state_mean: np.ndarray
    state_std: np.ndarray
    action_mean: np.ndarray
    action_std: np.ndarray
    latents: dict[str, LatentProjection] = field(default_factory=dict)
    state_range: np.ndarray = field(default_factory=lambda: _array([[-np.inf], [np.inf]]))

    def __post_init__(self) -> None:
        self.state_range = np.broadcast_to(self.state_range, (2, len(self.state_mean)))

    def state_limits(self) -> np.ndarray:
        """(2, S): the smallest and largest normalised states that a policy is given. They are
        ``STATE_MARGIN`` beyond the range of training, so that a state that hardly moved in the data
        never becomes many standard deviations.
        """
        normal = (self.state_range - self.state_mean) / self.state_std
        return normal + _array([[-STATE_MARGIN], [STATE_MARGIN]])

    def unusual_states(self, state: np.ndarray, names: Sequence[str]) -> str:
        """Which of the states (S,) are outside the range of training, for a message; "" if none is.
        Such states are clipped. If the range is unknown, nothing is clipped, and states more than
        ``UNUSUAL`` standard deviations from their mean are named. names: of the S states.
        """
        normal, limits = (state - self.state_mean) / self.state_std, self.state_limits()
        low, high = self.state_range
        outside = np.maximum(low - state, state - high)
        return "; ".join(
            f"{name} is {state[i]:.4g}, {outside[i]:.2g} outside {low[i]:.4g} to {high[i]:.4g} "
            "(clipped)"
            if np.isfinite(outside[i])
            else f"{name} is {state[i]:.4g}, {abs(normal[i]):.0f} standard deviations from its mean"
            for i, name in enumerate(names)
            if not limits[0, i] <= normal[i] <= limits[1, i]
            or (np.isinf(outside[i]) and abs(normal[i]) > UNUSUAL)
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        known = bool(np.isfinite(self.state_range).all())
        return {
            "state": {
                "mean": self.state_mean.tolist(),
                "std": self.state_std.tolist(),
                **({"range": self.state_range.tolist()} if known else {}),
            },
            "action": {"mean": self.action_mean.tolist(), "std": self.action_std.tolist()},
            "latents": {
                view: {
                    "mean": p.mean.tolist(),
                    "components": p.components.tolist(),
                    "std": p.std.tolist(),
                    "variance_share": p.variance_share,
                    **({} if p.step_mean is None else {"step_mean": p.step_mean.tolist()}),
                    **({} if p.step_std is None else {"step_std": p.step_std.tolist()}),
                }
                for view, p in self.latents.items()
            },
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any], source: str = "stats.json") -> "PolicyStats":
        """The inverse of ``to_dict``.

        source: where the values come from, for the error message. Raises UserError for a missing or
        malformed entry.
        """
        try:
            if any(("step_mean" in p) != ("step_std" in p) for p in values["latents"].values()):
                raise ValueError("step_mean and step_std belong together")
            latents = {
                view: LatentProjection(
                    _array(p["mean"]),
                    _array(p["components"]),
                    _array(p["std"]),
                    float(p["variance_share"]),
                    _array(p["step_mean"]) if "step_mean" in p else None,
                    _array(p["step_std"]) if "step_std" in p else None,
                )
                for view, p in values["latents"].items()
            }
            state, action = values["state"], values["action"]
            return cls(
                _array(state["mean"]),
                _array(state["std"]),
                _array(action["mean"]),
                _array(action["std"]),
                latents,
                **({"state_range": _array(state["range"])} if "range" in state else {}),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(
                f"{source}: the normalisation is incomplete or malformed ({error!r})"
            ) from None


def chunk_rows(
    first: int | np.ndarray, horizon: int, last: int | np.ndarray, stride: int = 1
) -> np.ndarray:
    """Rows of the chunks that begin at rows ``first`` (...), ``stride`` rows apart, int (..., H);
    past the episode's last row ``last`` (...), that row repeats.
    """
    rows = np.asarray(first)[..., None] + stride * np.arange(horizon)
    return np.minimum(rows, np.asarray(last)[..., None])


def relative_targets(actions: np.ndarray, state: np.ndarray, relative: np.ndarray) -> np.ndarray:
    """Chunks (..., H, A) in which the dimensions that ``relative`` (A,) bool marks are differences
    to the same columns of the state (..., S).
    """
    targets = actions.copy()
    targets[..., relative] -= state[..., None, np.flatnonzero(relative)]
    return targets


def fit_policy_stats(
    states: Sequence[np.ndarray],
    actions: Sequence[np.ndarray],
    horizon: int,
    relative: np.ndarray,
    floor: float = STD_FLOOR,
    quantiles: bool = False,
) -> PolicyStats:
    """Statistics over all chunks of all episodes, with states (T, S) and actions (T, A) of each.

    relative: (A,) bool, as in ``relative_targets``. floor: lower bound of the scales, in rad and m,
    so that noise in a dimension that never moves is not amplified. quantiles: map the 1 % and 99 %
    quantiles to -1 and 1, as pi0.5 does, instead of zero mean and unit variance; outliers then have
    no effect.
    """
    chunks = []
    for state, action in zip(states, actions, strict=True):
        rows = chunk_rows(np.arange(len(action)), horizon, len(action) - 1)  # (T, H)
        chunks.append(
            relative_targets(action[rows].astype(np.float64), state.astype(np.float64), relative)
        )
    targets, all_states = np.concatenate(chunks), np.concatenate(states).astype(np.float64)
    return PolicyStats(
        *_scale(all_states, floor, quantiles),
        *_scale(targets, floor, quantiles),
        state_range=_array([all_states.min(0), all_states.max(0)]),
    )


def _scale(values: np.ndarray, floor: float, quantiles: bool) -> tuple[np.ndarray, np.ndarray]:
    """Centre and scale of ``values`` over the first axis, float32."""
    if quantiles:
        low, high = np.quantile(values, [0.01, 0.99], axis=0)
        # What moves in less than 1 % of the rows, as a gripper may, is scaled by its whole range.
        still = high - low < 2 * floor
        low, high = np.where(still, values.min(0), low), np.where(still, values.max(0), high)
        centre, scale = (low + high) / 2, (high - low) / 2
    else:
        centre, scale = values.mean(0), values.std(0)
    return centre.astype(np.float32), np.maximum(scale, floor).astype(np.float32)


def _array(values: Any) -> np.ndarray:
    return np.asarray(values, dtype=np.float32)
