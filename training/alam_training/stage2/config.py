"""What a policy training run is told."""

from dataclasses import dataclass, field

from alam_core.errors import UserError
from alam_core.policy.config import ModelConfig
from alam_core.policy.samples import AugmentConfig
from alam_training.loop.config import LoopConfig


@dataclass
class RolloutConfig:
    """Episodes played in a world during training, on validation seeds. They cost time: none by
    default.

    Args:
        episodes: how many at each evaluation; 0 plays none.
        world: name of the world.
        first_seed: seed of the first episode.
        replan_every: control steps between two plans.
        workers: processes that play them; 0 plays in the training process.
    """

    episodes: int = 0
    world: str = "piper_place"
    first_seed: int = 500
    replan_every: int = 8
    workers: int = 0


@dataclass
class FinetuneConfig:
    """A policy training run.

    Args:
        data: folder of a LeRobot data set.
        run: folder for logs, the training state and, at the end, the policy in <run>/policy.
        encoder: folder, or name on the model hub, of a frozen transition model whose latents are
            generated beside the actions; none if empty.
        weights: published pi0 weights to begin from: a safetensors file, the folder that holds it,
            with tokenizer.json if it has not been downloaded apart, or a name on the model hub such
            as lerobot/pi0_base; none if empty.
        views: cameras the policy sees; none given means all that the data set has.
        latent_views: views whose latents are generated; none given means all views. Ignored without
            an encoder.
        latent_width: numbers a latent is projected to; 0 takes the action's width, as the paper
            does.
        latent_targets: what is generated for a step: the transition from the chunk's first frame to
            it, as a sum of transitions between neighbours ("cumulative"), or the last of these
            alone, as in the paper ("adjacent").
        latent_weight: lambda of each view's latents in the loss; the action's is 1.
        relative_joints: action dimensions predicted as differences to the state at the chunk's
            start.
        normalise: states and targets to unit variance ("std"), or their 1 % and 99 % quantiles to
            -1 and 1 ("quantiles").
        std_floor: least standard deviation of states and targets in their own units.
        held_out: share of the episodes kept for evaluation.
        batch: samples a step, over all processes together.
        draws: draws of (time, noise) for each encoded sample.
        augment: random changes of pictures and states.
        model: size of the network.
        rollouts: episodes played during training.
        loop: length, optimiser, saving.
    """

    data: str = ""
    run: str = "runs/finetune"
    encoder: str = ""
    weights: str = ""
    views: list[str] = field(default_factory=list)
    latent_views: list[str] = field(default_factory=list)
    latent_width: int = 0
    latent_targets: str = "cumulative"
    latent_weight: float = 0.3
    relative_joints: list[str] = field(default_factory=list)
    normalise: str = "std"
    std_floor: float = 3e-3
    held_out: float = 0.03
    batch: int = 64
    draws: int = 2
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    rollouts: RolloutConfig = field(default_factory=RolloutConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)

    def __post_init__(self) -> None:
        if self.batch < 1 or self.draws < 1:
            raise UserError("batch and draws must be at least 1")
        if self.std_floor <= 0 or self.latent_weight < 0 or self.latent_width < 0:
            raise UserError(
                "std_floor must be above 0; latent_weight and latent_width must not be negative"
            )
        if self.normalise not in ("std", "quantiles"):
            raise UserError(f"normalise is '{self.normalise}': choose std or quantiles")
        if self.latent_targets not in ("cumulative", "adjacent"):
            raise UserError(
                f"latent_targets is '{self.latent_targets}': choose cumulative or adjacent"
            )
        if self.weights and self.model.backbone != "pi0":
            raise UserError(
                f"weights '{self.weights}' are for pi0: give --model.backbone pi0 with them"
            )
        if not 0 <= self.held_out < 1:
            raise UserError(
                f"held_out is {self.held_out}: give the share of the episodes to keep for evaluation, from 0 to below 1"
            )
