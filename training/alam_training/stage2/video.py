"""The video of stage 2: episodes without labels, from which a policy learns what will happen.

F: frames of a source, K: instructions of a source.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from accelerate import PartialState

from alam_core.checkpoints import checkpoint_folder
from alam_core.data.faults import find_faults
from alam_core.data.frames import FrameStore, OnDemandFrames, VideoSet
from alam_core.data.instructions import plain
from alam_core.data.lerobot import Columns, LeRobotDataset
from alam_core.data.mixture import SourceConfig, VideoSource, decode, open_dataset
from alam_core.data.report import DataReport
from alam_core.data.video.folder import VIEW
from alam_core.errors import UserError, listing
from alam_core.latent_action import TransitionEncoder
from alam_core.latent_action.cache import cached_latents
from alam_core.policy.backbone import Tokenizer
from alam_core.policy.config import PolicyConfig
from alam_core.policy.normalization import PolicyStats
from alam_core.policy.samples import PolicySamples, last_frames
from alam_training.demonstrations import read_demonstrations
from alam_training.stage2.batches import SourceSamples, replaced, state_changes
from alam_training.stage2.config import FinetuneConfig, VideoConfig
from alam_training.stage2.self_label import inferred_actions, read_labeller

REPORT = "video_report.json"  # in the run's folder


@dataclass
class OpenVideo:
    """A source of video, checked but not decoded yet.

    views: those of the policy that it has -> its own names of them. tasks: index in
    ``instructions`` of each frame, (F,). hidden: episodes that must not be trained on.
    """

    config: VideoConfig
    dataset: VideoSet
    views: dict[str, str]
    fps: float
    lengths: np.ndarray
    instructions: list[str]
    tasks: np.ndarray
    broken: dict[int, str]
    hidden: list[int]


def open_videos(
    sources: Sequence[VideoConfig], views: Sequence[str], data: str, hidden: Collection[int]
) -> list[OpenVideo]:
    """Open sources of video for a policy that sees ``views``; decodes nothing.

    hidden: episodes of the data set ``data`` that are left out if it is one of the sources.

    Raises UserError for a source that cannot be opened, has none of the views, or has an episode
    without an instruction.
    """
    return [
        _open(source, views, hidden if Path(source.path).resolve() == Path(data).resolve() else ())
        for source in sources
    ]


def _open(source: VideoConfig, views: Sequence[str], hidden: Collection[int]) -> OpenVideo:
    broken: dict[int, str] = {}
    is_folder = set(source.images.values()) == {VIEW}
    plain_source = SourceConfig(source.path, images={} if is_folder else source.images)
    dataset = open_dataset(plain_source, broken)
    own = dict.fromkeys(source.images, VIEW) if is_folder else {v: v for v in dataset.views}
    shared = {view: own[view] for view in views if view in own}
    if not shared:
        first = "{" + f'"{views[0]}": "{dataset.views[0] if dataset.views else "..."}"' + "}"
        raise UserError(
            f"video: '{source.path}' has the views {listing(list(dataset.views))}, the policy sees "
            f"{', '.join(views)}: say which is which with images, for example {first}"
        )
    lengths = np.array([dataset.episode_length(e) for e in range(dataset.num_episodes)], int)
    texts = (
        _dataset_instructions(dataset, source, broken)
        if isinstance(dataset, LeRobotDataset)
        else _folder_instructions(dataset, source)
    )
    numbers: dict[str, int] = {}
    tasks = np.zeros(lengths.sum(), int)
    for first_row, length, said in zip(np.cumsum(lengths) - lengths, lengths, texts, strict=True):
        rows = slice(first_row, first_row + length)
        tasks[rows] = [numbers.setdefault(text, len(numbers)) if text else 0 for text in said]
    if not numbers:
        example = next(iter(broken.values()), "it has no episode")
        raise UserError(f"video: '{source.path}' has no episode to train on: {example}")
    hidden = sorted({*source.exclude, *hidden})
    fps = float(getattr(dataset, "fps", 0.0))
    return OpenVideo(source, dataset, shared, fps, lengths, list(numbers), tasks, broken, hidden)


def _dataset_instructions(
    dataset: LeRobotDataset, source: VideoConfig, broken: dict[int, str]
) -> list[Sequence[str]]:
    """The instructions of each episode's frames, those of broken and excluded episodes empty."""
    texts: list[Sequence[str]] = []
    for e in range(dataset.num_episodes):
        length = dataset.episode_length(e)
        said: Sequence[str] = [""] * length
        if e not in broken and e not in source.exclude:
            try:
                said = [source.instruction or text for text in dataset.episode(e).tasks]
            except UserError as error:
                broken[e] = str(error)
            else:
                _check_said(said[0] if length else "", f"episode {e} of '{source.path}'")
        texts.append(said)
    return texts


def _folder_instructions(dataset: VideoSet, source: VideoConfig) -> list[Sequence[str]]:
    texts: list[Sequence[str]] = []
    for e in range(dataset.num_episodes):
        file = dataset.video_span(e, VIEW)[0]
        beside = file.with_suffix(".txt")
        text = source.instruction or (beside.read_text().strip() if beside.is_file() else "")
        if e not in source.exclude:
            _check_said(text, f"'{file}'")
        texts.append([text] * dataset.episode_length(e))
    return texts


def _check_said(text: str, what: str) -> None:
    if not plain(text):
        raise UserError(
            f"video: {what} has no instruction: write it into a text file beside the video "
            "(push.mp4, push.txt), or give one for the whole source with instruction"
        )


def _states(config: FinetuneConfig, video: OpenVideo) -> np.ndarray:
    """The states of a source, for ``latent_control`` "state": float32 (F, S), 0 where hidden."""
    if not isinstance(video.dataset, LeRobotDataset):
        raise UserError(
            f"video: '{video.config.path}' has no states, which latent_control 'state' needs"
        )
    columns = Columns(config.state, config.action, video.config.images)
    dataset = LeRobotDataset(video.config.path, columns, video.broken)
    return read_demonstrations(dataset, video.hidden, video.broken).states


def load_videos(
    config: FinetuneConfig,
    videos: Sequence[OpenVideo],
    policy: PolicyConfig,
    stats: PolicyStats,
    tokenizer: Tokenizer,
) -> list[SourceSamples]:
    """Decode the frames of ``videos`` and encode their transitions, unless cached. Broken episodes
    are left out; ``<run>/video_report.json`` names them.

    Raises UserError for more broken episodes than ``config.max_broken``, and for a source without
    any episode left.
    """
    if not videos:
        return []
    encoder = checkpoint_folder(config.encoder) if config.encoder else None
    size = (
        TransitionEncoder.from_pretrained(encoder).image_size
        if encoder is not None
        else config.model.image_size
    )
    labeller = read_labeller(config.self_label, policy) if config.self_label else None
    step = policy.latent_dt or policy.dt
    sources, parts = [], []
    for video in videos:
        root, broken = Path(video.config.path), video.broken
        for own in video.views.values():
            broken |= find_faults(video.dataset, own) | broken
        frames = {
            view: decode(video.dataset, own, config.model.image_size, broken)
            for view, own in video.views.items()
        }
        last = last_frames(video.lengths, video.tasks)
        ends = np.unique(last) + 1
        starts = np.append(0, ends[:-1])
        stride = video.config.stride or max(1, round(step * video.fps))
        latents = {}
        for view in policy.latent_views:
            if view in video.views:
                if encoder is not None:
                    store = decode(video.dataset, video.views[view], size, broken)
                    cut = FrameStore(store.array, starts, ends - starts)
                    z = cached_latents(encoder, view, cut, root / ".cache", stride)
                else:
                    z = state_changes(_states(config, video), last, stride)
                p = stats.latents[view].project(np.asarray(z))
                latents[view] = replaced(p, config.latent_control)
        left_out = sorted({*broken, *video.hidden})
        samples = PolicySamples(
            frames,
            None,
            None,
            tokenizer(video.instructions),
            video.tasks,
            latents,
            stats,
            policy.relative(),
            left_out,
            views=policy.views,
            stride=stride,
        )
        rows = samples.rows_of(samples.included(np.arange(len(video.lengths))))
        if not len(rows):
            raise UserError(
                f"video: every episode of '{video.config.path}' is broken or excluded: restore "
                "some, or leave the source out"
            )
        if labeller is not None:
            samples.inferred = inferred_actions(labeller, samples)
        parts.append(SourceSamples(samples, rows, video.config.weight))
        sources.append(
            VideoSource(
                root.resolve().name,
                [OnDemandFrames(video.dataset, own, size) for own in video.views.values()],
                video.config.weight,
                stride,
                list(video.views),
                video.config.path,
                broken,
                video.hidden,
            )
        )
    report = DataReport(sources, [[] for _ in sources], [[] for _ in sources], config.max_broken)
    if PartialState(cpu=config.loop.cpu).is_main_process:
        print("\n".join(f"video without labels: {line}" for line in report.summary()))
        report.write(config.run, REPORT)
    return parts
