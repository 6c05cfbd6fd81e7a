"""Settings of a pretraining run (stage 1)."""

from dataclasses import dataclass, field, replace

from alam_core.data.mixture import SourceConfig
from alam_core.errors import UserError
from alam_core.latent_action.config import TransitionConfig
from alam_core.latent_action.grounding import GroundingConfig
from alam_core.latent_action.triplets import GapConfig
from alam_training.loop.config import LoopConfig
from alam_training.stage1.actions import ActionProbeConfig

# Settings that may differ when a run is resumed: they change neither the triplets nor the model.
# (``loop`` has a list of its own.)
MAY_CHANGE = (
    "run",
    "loop",
    "cache",
    "workers",
    "max_broken",
    "probe_gap",
    "probe_triplets",
    "actions",
)


@dataclass
class PretrainConfig:
    """A pretraining run.

    Args:
        data: folder of a LeRobot data set or of video files, or a list of sources to mix, each with
            path, weight, stride, views, name, exclude and images.
        run: folder for logs, the training state and, at the end, the model in <run>/model.
        views: cameras to train on, one model for all of them; empty means all that a source has.
        images: view -> name of the video feature that holds it, for example '{"wrist":
            "wrist_image"}'; empty means that every video feature of the data set is a view.
        exclude: numbers of episodes to leave out; they do not count as broken. In a list of
            sources, each source has its own images and exclude.
        held_out: fraction of each source's episodes to keep for evaluation.
        batch: triplets per step, over all processes together.
        gaps: how far apart the frames of a triplet are.
        cache: true decodes all frames once and keeps them in <source>/.cache; false decodes videos
            while training; a number decodes sources once, smaller ones first, as long as they take
            at most this many GB together.
        workers: processes that decode videos while training, where any are.
        max_broken: largest fraction of a source's episodes that may be broken or too short; above
            it training stops.
        probe_gap: k of the metrics on the held-out set, in frames (times the source's stride).
        probe_triplets: held-out triplets per source in an evaluation.
        actions: how the action probe of an evaluation works, for sources that have labels and whose
            frames are decoded once. The labels are used for nothing else.
        grounding: how action labels train the encoder, where there are some; by default not at all.
        model: size and losses; a file such as training/configs/models/small.yaml, or single values.
        loop: length, optimiser, saving and logging.
    """

    data: str | list[SourceConfig] = ""
    run: str = "runs/pretrain"
    views: list[str] = field(default_factory=list)
    images: dict[str, str] = field(default_factory=dict)
    exclude: list[int] = field(default_factory=list)
    held_out: float = 0.05
    batch: int = 32
    gaps: GapConfig = field(default_factory=GapConfig)
    cache: bool | float = 16.0
    workers: int = 2
    max_broken: float = 0.05
    probe_gap: int = 5
    probe_triplets: int = 256
    actions: ActionProbeConfig = field(
        default_factory=lambda: ActionProbeConfig(labelled=[10], most=1000)
    )
    grounding: GroundingConfig = field(default_factory=GroundingConfig)
    model: TransitionConfig = field(default_factory=TransitionConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)

    def __post_init__(self) -> None:
        if min(self.batch, self.probe_triplets, self.probe_gap) < 1:
            raise UserError("batch, probe_triplets and probe_gap must be at least 1")
        if not 0 <= self.max_broken <= 1 or self.workers < 0:
            raise UserError("max_broken must be between 0 and 1, and workers 0 or more")
        if not isinstance(self.data, str) and (self.images or self.exclude):
            raise UserError("data is a list of sources: give each its own images and exclude")
        for source in self.sources:
            source.check()

    @property
    def sources(self) -> list[SourceConfig]:
        """The sources to mix, whether one or several are given."""
        if isinstance(self.data, str):
            source = SourceConfig(
                self.data, views=self.views, exclude=self.exclude, images=self.images
            )
            return [source] if self.data else []
        return [replace(source, views=source.views or self.views) for source in self.data]
