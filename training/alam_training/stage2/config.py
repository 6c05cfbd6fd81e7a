"""Settings of a policy training run (stage 2)."""

from dataclasses import dataclass, field
from typing import Literal

from alam_core.data.lerobot import Columns, layout
from alam_core.errors import UserError
from alam_core.policy.config import ModelConfig
from alam_core.policy.samples import AugmentConfig
from alam_core.types import STD_FLOOR
from alam_training.loop.config import LoopConfig

# Settings that may differ when a run is resumed. (``loop`` has a list of its own; instead of the
# encoder's path, the hash of its checkpoint is compared, and a digest of the data instead of what
# is read of them.)
MAY_CHANGE = ("run", "loop", "rollouts", "encoder", "state", "action", "exclude", "max_broken")


@dataclass
class VideoConfig:
    """A source of video that shows the task but has no action labels; those that it has are not
    read.

    Args:
        path: folder of a LeRobot data set, or of video files, one per episode, at any depth.
        weight: share of the video samples, relative to the other sources' weights.
        stride: frames between two steps of a latent; 0 follows from the frame rates, so that a
            step takes as long as in the demonstrations.
        images: view of the policy -> name of the video feature that holds it ("video" for a folder
            of video files); empty: features with the names of views. Views that a source does not
            have are black.
        instruction: for a folder of video files, that of all files. Empty: each file has its own,
            in a text file beside it (push.mp4, push.txt).
        exclude: numbers of episodes to leave out.
    """

    path: str
    weight: float = 1.0
    stride: int = 0
    images: dict[str, str] = field(default_factory=dict)
    instruction: str = ""
    exclude: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not 0 < self.weight < float("inf") or self.stride < 0:
            raise UserError(
                f"video: '{self.path}' has weight {self.weight} and stride {self.stride}: the "
                "weight must be above 0, the stride not negative"
            )


def video_sources(video: str | list[VideoConfig]) -> list[VideoConfig]:
    """The sources of a setting that takes a folder, "" for none, or a list of sources."""
    if isinstance(video, str):
        return [VideoConfig(video)] if video else []
    return video


@dataclass
class RolloutConfig:
    """Rollouts in a simulated world during training, on validation seeds. They take time, so there
    are none by default.

    Args:
        episodes: rollouts per evaluation; 0 turns them off.
        world: name of the world.
        first_seed: seed of the first episode.
        replan_every: control steps between two plans.
        workers: processes that run the episodes; 0 runs them in the training process.
        joint_names_map: as in the evaluation: entries <name in the data>=<joint>.
    """

    episodes: int = 0
    world: str = "piper_place"
    first_seed: int = 500
    replan_every: int = 8
    workers: int = 0
    joint_names_map: list[str] = field(default_factory=list)


@dataclass
class FinetuneConfig:
    """A policy training run.

    Args:
        data: folder of a LeRobot data set.
        run: folder for logs, the training state and, at the end, the policy in <run>/policy.
        labelled: use the labels of only this many training episodes of each instruction, for
            studies of few labels; what is dropped is never read. 0 uses all.
        video: folder of video without action labels, or a list of such sources. The policy learns
            from it what will happen: the latents of its encoder, not the actions.
        video_share: part of each batch that is drawn from the video.
        unknown_state: part of the labelled samples whose state is hidden, so that they look like
            video; only used with video.
        self_label: folder of a policy that was trained with the same settings, with video and with
            --model.times own: it infers the actions of the video, which are then trained on too.
        state: feature of the data set that holds the state.
        action: feature that holds the action.
        images: view -> name of the video feature that holds it, for example '{"wrist":
            "wrist_image"}'; empty means that every video feature is a view.
        exclude: numbers of episodes to leave out; they do not count as broken.
        max_broken: largest fraction of the episodes that may be broken; they are left out, and
            above it training stops.
        encoder: folder of a frozen transition model, or its name on the model hub; its latents are
            generated together with the actions. Empty: no latents.
        weights: published pi0 weights to start from: a safetensors file, its folder (with
            tokenizer.json, unless that was downloaded separately), or a name on the model hub such
            as lerobot/pi0_base. Empty: none.
        views: cameras the policy sees; empty means all that the data set has.
        latent_views: views whose latents are generated; empty means all views. Ignored without an
            encoder.
        latent_width: dimensions that a latent is projected to; 0 means the width of the action, as
            in the paper.
        latent_targets: what is generated for a step. "cumulative": the transition from the chunk's
            first frame to the step, as a sum of transitions between adjacent frames; "adjacent":
            the transition from the frame before, as in the paper.
        latent_seconds: time between two steps of a latent, in s; 0: one step of the actions. Where
            the frame rate is high, longer steps show more motion.
        latent_control: what replaces the targets, in a control experiment with the same tokens and
            the same compute. "zeros": zeros. "random": for each frame a fixed random vector.
            "state": the change of the state, which says as much about the motion as any transition
            could; it is read for video too, and there is one latent view. "": nothing.
        latent_weight: lambda, the weight of each view's latents in the loss; the action's is 1.
        relative_joints: names of action dimensions that are predicted as differences to the state
            at the start of the chunk.
        normalise: "std": states and targets to unit variance; "quantiles": their 1 % and 99 %
            quantiles to -1 and 1.
        std_floor: smallest standard deviation to divide states and targets by, in their units.
        held_out: fraction of the episodes to keep for evaluation.
        batch: samples per step, over all processes together.
        draws: draws of (time, noise) per encoded sample.
        augment: random changes of the images and states in training.
        model: size of the network.
        rollouts: rollouts during training.
        loop: length, optimiser, saving and logging.
    """

    data: str = ""
    run: str = "runs/finetune"
    encoder: str = ""
    weights: str = ""
    views: list[str] = field(default_factory=list)
    latent_views: list[str] = field(default_factory=list)
    latent_width: int = 0
    latent_targets: Literal["cumulative", "adjacent"] = "cumulative"
    latent_seconds: float = 0.0
    latent_control: Literal["", "zeros", "random", "state"] = ""
    latent_weight: float = 0.3
    relative_joints: list[str] = field(default_factory=list)
    normalise: Literal["std", "quantiles"] = "std"
    std_floor: float = STD_FLOOR
    held_out: float = 0.03
    batch: int = 64
    draws: int = 2
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    rollouts: RolloutConfig = field(default_factory=RolloutConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)
    state: str = layout.STATE
    action: str = layout.ACTION
    images: dict[str, str] = field(default_factory=dict)
    exclude: list[int] = field(default_factory=list)
    max_broken: float = 0.05
    labelled: int = 0
    video: str | list[VideoConfig] = ""
    video_share: float = 0.5
    unknown_state: float = 0.2
    self_label: str = ""

    def __post_init__(self) -> None:
        if self.batch < 1 or self.draws < 1:
            raise UserError("batch and draws must be at least 1")
        if self.std_floor <= 0 or self.latent_weight < 0 or self.latent_width < 0:
            raise UserError(
                "std_floor must be above 0; latent_weight and latent_width must not be negative"
            )
        if self.weights and self.model.backbone != "pi0":
            raise UserError(
                f"weights '{self.weights}' are for pi0: give --model.backbone pi0 with them"
            )
        if not 0 <= self.held_out < 1:
            raise UserError(
                f"held_out is {self.held_out}: give the fraction of the episodes to keep for "
                "evaluation, at least 0 and less than 1"
            )
        if not 0 <= self.max_broken <= 1:
            raise UserError(f"max_broken is {self.max_broken}: give a fraction between 0 and 1")

        if self.labelled < 0 or self.latent_seconds < 0:
            raise UserError("labelled and latent_seconds must not be negative")
        if not 0 < self.video_share < 1 or not 0 <= self.unknown_state < 1:
            raise UserError(
                f"video_share is {self.video_share} and unknown_state is {self.unknown_state}: "
                "give fractions between 0 and 1"
            )
        if self.self_label and not self.video:
            raise UserError("self_label: there is no video to label; give some with --video")
        if self.latent_control == "state" and self.encoder:
            raise UserError("latent_control 'state' replaces the encoder: give --encoder= with it")
        if self.video and not self.encoder and self.latent_control != "state":
            raise UserError(
                "video teaches a policy only through latents: give a transition model with "
                "--encoder"
            )

    @property
    def videos(self) -> list[VideoConfig]:
        """The sources of video, whether one or several are given."""
        return video_sources(self.video)

    @property
    def columns(self) -> Columns:
        """The features of the data set that are read."""
        return Columns(self.state, self.action, self.images)
