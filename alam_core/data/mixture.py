"""The video that a model is pretrained on: one source or a weighted mixture of several.

A source is a LeRobot data set or a folder of video files. E: number of episodes of a source.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from alam_core.data.faults import find_faults
from alam_core.data.frames import FrameStore, OnDemandFrames, VideoSet, frame_store, store_bytes
from alam_core.data.lerobot import layout
from alam_core.data.lerobot.episodes import data_sets_below
from alam_core.data.lerobot.features import Columns
from alam_core.data.lerobot.reader import LeRobotDataset
from alam_core.data.video.folder import VideoFolder
from alam_core.errors import UserError, listing
from alam_core.hub import data_set_hint

GB = 1e9


@dataclass
class SourceConfig:
    """One source of a mixture.

    Args:
        path: folder of a LeRobot data set (3.0, 2.1 or 2.0), or of video files, one per episode,
            at any depth.
        weight: share of the triplets drawn from this source, relative to the other sources'
            weights.
        stride: frames of the source per unit of a triplet's gaps, which is the paper's frame skip
            (Table 7).
        views: cameras to train on; empty: all.
        name: the name in metrics and reports; empty: the folder's name.
        exclude: numbers of episodes to leave out.
        images: view -> name of the video feature that holds it, in a LeRobot data set; empty: every
            video feature is a view.
    """

    path: str
    weight: float = 1.0
    stride: int = 1
    views: list[str] = field(default_factory=list)
    name: str = ""
    exclude: list[int] = field(default_factory=list)
    images: dict[str, str] = field(default_factory=dict)

    def check(self) -> None:
        """Raises UserError for a stride below 1 or a weight that is not above 0 and finite."""
        if self.stride < 1:
            raise UserError(f"data: stride of '{self.path}' is {self.stride}: it must be 1 or more")
        if not self.weight > 0 or not np.isfinite(self.weight):
            raise UserError(
                f"data: weight of '{self.path}' is {self.weight}: it must be above 0; "
                "remove a source from the list to leave it out"
            )


@dataclass
class VideoSource:
    """An open source. All views have the same episodes."""

    name: str
    frames: list[FrameStore | OnDemandFrames]  # one per view
    weight: float = 1.0
    stride: int = 1
    views: list[str] = field(default_factory=list)
    path: str = ""
    broken: dict[int, str] = field(default_factory=dict)  # episode -> what is wrong
    excluded: list[int] = field(default_factory=list)  # episodes that the user leaves out

    def __post_init__(self) -> None:
        episodes = len(self.lengths)
        for e in self.excluded:
            if not 0 <= e < episodes:
                raise UserError(
                    f"exclude: '{self.path or self.name}' has no episode {e}; it has the episodes "
                    f"0 to {episodes - 1}"
                )
        self.excluded = sorted(set(self.excluded))

    @property
    def lengths(self) -> np.ndarray:
        """Frames of each episode: int64 (E,)."""
        return self.frames[0].lengths

    def included(self, episodes: np.ndarray) -> np.ndarray:
        """The numbers in ``episodes`` that the user does not leave out."""
        return episodes[~np.isin(episodes, self.excluded)]

    def intact(self, episodes: np.ndarray) -> np.ndarray:
        """The numbers in ``episodes`` that are neither left out nor known to be broken."""
        return self.included(episodes[~np.isin(episodes, list(self.broken))])


def open_dataset(config: SourceConfig, broken: dict[int, str]) -> VideoSet:
    """Open the data set or folder of videos of a source. Episodes whose metadata are broken are
    added to ``broken``, with the reason. Raises UserError if the folder is neither.
    """
    path = Path(config.path)
    if not path.is_dir():
        raise UserError(
            f"data: '{path}' is not a folder: give a LeRobot data set or a folder of videos; "
            f"training/collect.py makes a data set{data_set_hint(path)}"
        )
    if _is_lerobot(path):
        return LeRobotDataset(path, Columns("", "", config.images), broken)
    if inside := data_sets_below(path):
        raise UserError(
            f"data: '{path}' holds the data sets {listing(inside)}: give one of them, or, for "
            "pretraining, a list with several"
        )
    if config.images:
        raise UserError(f"images: '{path}' is a folder of videos, which has only the view 'video'")
    return VideoFolder(path)


def open_sources(configs: list[SourceConfig], size: int, cache: bool | float) -> list[VideoSource]:
    """Open each source, with its frames at ``size`` x ``size`` pixels.

    cache: True decodes all frames once into ``<path>/.cache``; False decodes on demand; a number is
        a limit in GB: sources are decoded once, the smallest first, as long as together they stay
        below the limit; the others are decoded on demand. The frames are the same either way.

    Raises UserError for a source that cannot be opened, a source without views, an unknown view,
    and two sources with the same name.
    """
    for config in configs:
        config.check()
    names = [config.name or Path(config.path).resolve().name for config in configs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise UserError(f"data: two sources are called '{twice}': give them different names")
    faults: list[dict[int, str]] = [{} for _ in configs]
    datasets = [
        open_dataset(config, broken) for config, broken in zip(configs, faults, strict=True)
    ]
    views = [
        config.views or list(dataset.views)
        for config, dataset in zip(configs, datasets, strict=True)
    ]
    for config, dataset, chosen in zip(configs, datasets, views, strict=True):
        if not chosen:
            raise UserError(
                f"'{config.path}' has no camera view: a transition model is trained on video"
            )
        for view in chosen:
            dataset.check_view(view)
    decoded_once = _what_fits(
        [
            store_bytes(dataset, chosen, size)
            for dataset, chosen in zip(datasets, views, strict=True)
        ],
        cache,
    )
    sources = []
    for name, config, dataset, chosen, once, broken in zip(
        names, configs, datasets, views, decoded_once, faults, strict=True
    ):
        frames: list[FrameStore | OnDemandFrames] = [
            decode(dataset, view, size, broken) if once else _on_demand(dataset, view, size, broken)
            for view in chosen
        ]
        sources.append(
            VideoSource(
                name,
                frames,
                config.weight,
                config.stride,
                chosen,
                config.path,
                dict(sorted(broken.items())),
                config.exclude,
            )
        )
    return sources


def decode(dataset: VideoSet, view: str, size: int, broken: dict[int, str]) -> FrameStore:
    """The frames of a view, decoded once; those of episodes whose video is broken are black, and
    the episodes are added to ``broken``, with the reason.
    """
    faults = find_faults(dataset, view)
    store = frame_store(dataset, view, size, faults)
    broken |= faults | broken  # the first reason stays
    return store


def _on_demand(dataset: VideoSet, view: str, size: int, broken: dict[int, str]) -> OnDemandFrames:
    broken |= find_faults(dataset, view) | broken
    return OnDemandFrames(dataset, view, size)


def _is_lerobot(path: Path) -> bool:
    """Whether a folder is a LeRobot data set, or an incomplete one."""
    return (
        (path / layout.INFO).is_file()
        or (path / "meta").is_dir()
        or (path.parent / layout.partial_name(path.name)).exists()
    )


def _what_fits(sizes: list[int], cache: bool | float) -> list[bool]:
    """Which sources are decoded once. sizes: bytes of each source after decoding. cache: see
    ``open_sources``.
    """
    if isinstance(cache, bool):
        return [cache] * len(sizes)
    left, fits = cache * GB, [False] * len(sizes)
    for i in np.argsort(sizes, kind="stable"):
        if sizes[i] <= left:
            left, fits[i] = left - sizes[i], True
    return fits
