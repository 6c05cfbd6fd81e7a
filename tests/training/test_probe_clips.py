"""Clips for probes: held-out episodes only, k strides apart, evenly spread."""

from pathlib import Path

import numpy as np
import pytest
from probe_fixtures import make_runs

from alam_core.data.frames import FrameStore
from alam_core.data.mixture import VideoSource, open_sources
from alam_core.errors import UserError
from alam_training.stage1.clips import held_out_clips, spread_clips
from alam_training.stage1.data import check_same_episodes, split_source
from alam_training.stage1.runs import run_config


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_runs(tmp_path_factory.mktemp("probe"))


def test_only_held_out_episodes_are_probed(runs: Path) -> None:
    trained = run_config(runs / "lam_s0")
    assert trained.held_out == 0.4 and [Path(source.path).name for source in trained.sources] == [
        "north",
        "south",
    ]
    clips = held_out_clips(runs / "lam_s0", trained, 32, 2, 10_000)
    for source in open_sources(trained.sources, 32, True):
        training, held = split_source(source, 0.4)
        own = clips[source.name]
        assert len(own.groups) == len(source.frames) * len(held) * 4  # 14 frames hold 4 clips of 11
        for number, frames in enumerate(source.frames):
            shown = {
                image.tobytes() for t in range(6) for image in own.frames[t][own.groups == number]
            }
            assert shown == {
                image.tobytes()
                for e in held
                for image in frames.array[frames.starts[e] + np.arange(14)]
            }
            assert not shown & {
                image.tobytes()
                for e in training
                for image in frames.array[frames.starts[e] + np.arange(14)]
            }


def test_data_that_has_grown_is_not_probed(runs: Path) -> None:
    trained = run_config(runs / "lam_s0")
    grown = open_sources(trained.sources, 32, True)
    grown[1].frames[0].lengths = np.append(grown[1].frames[0].lengths, 14)
    check_same_episodes(runs / "lam_s0", open_sources(trained.sources, 32, True))
    with pytest.raises(
        UserError, match=r"south' had \d+ episodes when .*lam_s0' was trained and has \d+ now"
    ):
        check_same_episodes(runs / "lam_s0", grown)


def numbered(lengths: list[int], stride: int = 1, views: int = 1) -> VideoSource:
    """Frames whose pixels are their index in the episode; the last pixel is the episode's index."""
    starts = np.cumsum(lengths) - lengths
    array = np.zeros((sum(lengths), 4, 4, 3), np.uint8)
    for e, (start, length) in enumerate(zip(starts, lengths, strict=True)):
        array[start : start + length] = np.arange(length)[:, None, None, None]
        array[start : start + length, 3, 3] = e
    frames = FrameStore(array, starts, np.array(lengths))
    return VideoSource("numbers", [frames] * views, 1.0, stride, [f"view{i}" for i in range(views)])


def test_clips_are_k_strides_apart_within_one_episode_and_evenly_spread() -> None:
    clips = spread_clips(numbered([40, 9, 60, 21], stride=2, views=2), np.array([0, 1, 3]), 2, 11)
    assert clips.frames.shape[:2] == (6, 11) and sorted(np.bincount(clips.groups)) == [5, 6]
    times, episodes = clips.frames[:, :, 0, 0, 0].astype(int), clips.frames[:, :, 3, 3, 0]
    assert (np.diff(times, axis=0) == 4).all() and (episodes == episodes[0]).all()
    assert set(episodes[0]) == {0, 3}  # the second is too short, the third not asked for
    with pytest.raises(UserError, match="'numbers' has the 21 frames of a clip"):
        spread_clips(numbered([20, 5]), np.array([0, 1]), 4, 10)
    with pytest.raises(UserError, match="contain only one clip of 21 frames: hold out more"):
        spread_clips(numbered([21, 5]), np.array([0, 1]), 4, 10)
