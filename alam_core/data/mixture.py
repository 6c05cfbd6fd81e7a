"""The video that a model is pretrained on: one source or a weighted mixture of several.

A source is a LeRobot data set or a folder of video files. E: number of episodes of a source.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from alam_core.data.faults import find_faults
from alam_core.data.frames import FrameStore, OnDemandFrames, VideoSet, frame_store, store_bytes
from alam_core.data.lerobot import layout
from alam_core.data.lerobot.reader import LeRobotDataset
from alam_core.data.video.folder import VideoFolder
from alam_core.errors import UserError

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
    """

    path: str
    weight: float = 1.0
    stride: int = 1
    views: list[str] = field(default_factory=list)
    name: str = ""

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

    @property
    def lengths(self) -> np.ndarray:
        """Frames of each episode: int64 (E,)."""
        return self.frames[0].lengths

    def without_broken(self, episodes: np.ndarray) -> np.ndarray:
        """The numbers in ``episodes`` that are not known to be broken."""
        return episodes[~np.isin(episodes, list(self.broken))]


def open_dataset(path: str | Path) -> VideoSet:
    """Open the data set or folder of videos at ``path``. Raises UserError if it is neither."""
    path = Path(path)
    if not path.is_dir():
        raise UserError(
            f"data: '{path}' is not a folder: give a LeRobot data set or a folder of videos; "
            "training/collect.py makes a data set"
        )
    return LeRobotDataset(path) if _is_lerobot(path) else VideoFolder(path)


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
    datasets = [open_dataset(config.path) for config in configs]
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
    for name, config, dataset, chosen, once in zip(
        names, configs, datasets, views, decoded_once, strict=True
    ):
        broken: dict[int, str] = {}
        frames: list[FrameStore | OnDemandFrames] = []
        for view in chosen:
            faults = find_faults(dataset, view)
            frames.append(
                frame_store(dataset, view, size, faults)
                if once
                else OnDemandFrames(dataset, view, size)
            )
            broken = faults | broken
        sources.append(
            VideoSource(
                name,
                frames,
                config.weight,
                config.stride,
                chosen,
                config.path,
                dict(sorted(broken.items())),
            )
        )
    return sources


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
