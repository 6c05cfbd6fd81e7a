"""The video that a model is pretrained on: one source or a weighted mixture of several, and what in
them is broken.

A source is a LeRobot data set or a folder of video files. E: episodes of a source.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from alam_core.data.frames import FrameStore, OnDemandFrames, VideoSet, frame_store, store_bytes
from alam_core.data.lerobot import layout
from alam_core.data.lerobot.reader import LeRobotDataset
from alam_core.data.video.folder import VideoFolder
from alam_core.data.video.index import inspect_videos
from alam_core.errors import UserError

GB = 1e9


@dataclass
class SourceConfig:
    """One source of a mixture.

    Args:
        path: folder of a LeRobot data set (3.0, 2.1 or 2.0), or of video files, one an episode, in
            any depth of folders.
        weight: share of the triplets that come from here, relative to the other sources' weights.
        stride: frames of the source to a frame of the triplet's gaps (Table 7).
        views: cameras to train on; none given means all.
        name: what figures and reports call it; none given means the folder's name.
    """

    path: str
    weight: float = 1.0
    stride: int = 1
    views: list[str] = field(default_factory=list)
    name: str = ""

    def check(self) -> None:
        """Raises UserError for a stride or a weight that cannot be."""
        if self.stride < 1:
            raise UserError(f"data: stride of '{self.path}' is {self.stride}: it must be 1 or more")
        if not self.weight > 0 or not np.isfinite(self.weight):
            raise UserError(
                f"data: weight of '{self.path}' is {self.weight}: it must be above 0; leave a source out instead"
            )


@dataclass
class VideoSource:
    """A source that is open: the frames of each view, all with the same episodes."""

    name: str
    frames: list[FrameStore | OnDemandFrames]
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
        """Those of ``episodes`` that are not known to be broken."""
        return episodes[~np.isin(episodes, list(self.broken))]


def open_dataset(path: str | Path) -> VideoSet:
    """The data set or the folder of videos at ``path``. Raises UserError where there is neither."""
    path = Path(path)
    if not path.is_dir():
        raise UserError(
            f"data: '{path}' is no folder: give a LeRobot data set or a folder of videos; training/collect.py makes a data set"
        )
    return LeRobotDataset(path) if _is_lerobot(path) else VideoFolder(path)


def open_sources(configs: list[SourceConfig], size: int, cache: bool | float) -> list[VideoSource]:
    """Open each source, its frames at ``size`` x ``size`` pixels.

    cache: true decodes all frames once into ``<path>/.cache``, false reads the videos on demand, a
        number does the first for as many sources, the smaller ones first, as take this many GB
        together. The frames are the same either way. Raises UserError for a source that cannot be
        opened at all, an unknown view, and two sources of one name.
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
            if view not in dataset.views:
                raise UserError(
                    f"'{config.path}' has no view '{view}'; it has: {', '.join(dataset.views)}"
                )
    cached = _what_fits(
        [
            store_bytes(dataset, chosen, size)
            for dataset, chosen in zip(datasets, views, strict=True)
        ],
        cache,
    )
    sources = []
    for name, config, dataset, chosen, keep in zip(
        names, configs, datasets, views, cached, strict=True
    ):
        broken: dict[int, str] = {}
        frames: list[FrameStore | OnDemandFrames] = []
        for view in chosen:
            faults = find_faults(dataset, view)
            frames.append(
                frame_store(dataset, view, size, faults)
                if keep
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


def find_faults(dataset: VideoSet, view: str) -> dict[int, str]:
    """Episodes whose video of ``view`` is missing, cut short or empty, with the reason, found
    without decoding.
    """
    files = dataset.video_files(view)
    facts = dict(
        zip(
            files,
            inspect_videos(dataset.root, [str(file.relative_to(dataset.root)) for file in files]),
            strict=True,
        )
    )
    faults = {}
    for e in range(dataset.num_episodes):
        length = dataset.episode_length(e)
        file, first = dataset.video_span(e, view)
        if isinstance(dataset, VideoFolder) and facts[file].fault:
            faults[e] = facts[file].fault
        elif length < 1:
            faults[e] = f"episode {e} of '{dataset.root}' has no frame"
        elif first + length > facts[file].frames:
            faults[e] = f"episode {e}: " + (
                facts[file].fault
                or f"video '{file}' has {facts[file].frames} frames, {first + length} are needed"
            )
    return faults


def _is_lerobot(path: Path) -> bool:
    """Whether a folder is, or tries to be, a LeRobot data set."""
    return (
        (path / layout.INFO).is_file()
        or (path / "meta").is_dir()
        or (path.parent / layout.partial_name(path.name)).exists()
    )


def _what_fits(sizes: list[int], cache: bool | float) -> list[bool]:
    """Which sources are decoded beforehand."""
    if isinstance(cache, bool):
        return [cache] * len(sizes)
    left, fits = cache * GB, [False] * len(sizes)
    for i in np.argsort(sizes, kind="stable"):
        if sizes[i] <= left:
            left, fits[i] = left - sizes[i], True
    return fits


class DataReport:
    """What is trained on and what is broken in it: kept up to date while training, and the judge of
    how much is too much.

    max_broken: the largest share of a source's episodes that may be broken or too short.
    """

    def __init__(
        self,
        sources: list[VideoSource],
        short: list[list[int]],
        held: list[list[int]],
        max_broken: float,
    ) -> None:
        self.sources, self.short, self.held, self.max_broken = sources, short, held, max_broken
        self.broken = [dict(source.broken) for source in sources]
        self.replaced = [0] * len(sources)  # triplets that were drawn again
        for part in range(len(sources)):
            self._judge(part)

    def add(self, part: int, episode: int, why: str, replaced: int = 0) -> None:
        """Note that an episode of source ``part`` turned out broken, and that ``replaced`` triplets
        were drawn again because of it.

        Raises UserError once more than ``max_broken`` of the source's episodes are broken.
        """
        self.replaced[part] += replaced
        if episode not in self.broken[part]:
            self.broken[part][episode] = why
            self._judge(part)

    def found(self) -> tuple[list[dict[int, str]], list[int]]:
        """What this process has found, for ``merge`` in another."""
        return self.broken, self.replaced

    def merge(self, others: list[tuple[list[dict[int, str]], list[int]]]) -> None:
        """Take in what each of several processes, this one among them, has found."""
        for broken, _ in others:
            for part, faults in enumerate(broken):
                self.broken[part] = faults | self.broken[part]
        self.replaced = [
            sum(replaced[part] for _, replaced in others) for part in range(len(self.sources))
        ]

    def _judge(self, part: int) -> None:
        source, broken, short = (
            self.sources[part],
            self.broken[part],
            set(self.short[part]) - self.broken[part].keys(),
        )
        episodes = len(source.lengths)
        if len(broken) + len(short) > self.max_broken * episodes:
            example = next(
                iter(broken.values()),
                f"episode {next(iter(short), 0)} has {source.lengths[next(iter(short), 0)]} frames",
            )
            raise UserError(
                f"{len(broken)} broken and {len(short)} too short of {episodes} episodes of '{source.path or source.name}' are more than "
                f"--max_broken {self.max_broken:g} allows (such as: {example}): restore them, or allow more"
            )

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain JSON values."""
        total = sum(source.weight for source in self.sources)
        return {
            "max_broken": self.max_broken,
            "sources": [
                {
                    "name": source.name,
                    "path": source.path,
                    "views": source.views,
                    "weight": source.weight,
                    "share": source.weight / total,
                    "stride": source.stride,
                    "episodes": len(source.lengths),
                    "frames_a_view": int(source.lengths.sum()),
                    "held_out": len(self.held[part]),
                    "read": [
                        "decoded once" if isinstance(frames, FrameStore) else "on demand"
                        for frames in source.frames
                    ],
                    "too_short": self.short[part],
                    "broken": [
                        {"episode": e, "why": why} for e, why in sorted(self.broken[part].items())
                    ],
                    "triplets_replaced": self.replaced[part],
                }
                for part, source in enumerate(self.sources)
            ],
        }

    def summary(self) -> list[str]:
        """A line a source, with the first few broken episodes named."""
        lines = []
        for part, source in enumerate(self.sources):
            line = f"{source.name}: {len(source.lengths)} episodes, {int(source.lengths.sum())} frames a view, {len(self.held[part])} held out"
            if self.broken[part]:
                line += f"; {len(self.broken[part])} broken and left out: " + "; ".join(
                    list(self.broken[part].values())[:3]
                )
                line += " ..." if len(self.broken[part]) > 3 else ""
            if self.short[part]:
                line += f"; {len(self.short[part])} too short and left out: episodes {', '.join(map(str, self.short[part][:10]))}"
                line += " ..." if len(self.short[part]) > 10 else ""
            lines.append(line)
        return lines
