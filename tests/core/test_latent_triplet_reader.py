"""Reading triplets: a sample depends on (seed, step) only; broken ones are replaced, reported."""

import errno
import multiprocessing
import os
import shutil
import signal
import time
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from video_fixtures import write_video

from alam_core.data.mixture import SourceConfig, VideoSource, open_sources
from alam_core.errors import UserError, explain
from alam_core.latent_action import triplet_reader
from alam_core.latent_action.triplet_reader import TripletReader
from alam_core.latent_action.triplets import GapConfig, TripletSampler

LENGTHS = (20, 12, 30, 16)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    for name, suffix in {"one": "mp4", "two": "mkv"}.items():
        for e, length in enumerate(LENGTHS):
            write_video(root / name / f"{e}.{suffix}", length, e)
    return root


def opened(root: Path, cache: bool = False) -> list[VideoSource]:
    return open_sources(
        [SourceConfig(str(root / "one"), 3.0), SourceConfig(str(root / "two"), 1.0, stride=2)],
        8,
        cache,
    )


def sampler(sources: list[VideoSource]) -> TripletSampler:
    parts = [
        TripletSampler(source.frames, np.arange(4), GapConfig("uniform", 4), source.stride)
        for source in sources
    ]
    return TripletSampler.mix(parts, [source.weight for source in sources])


class Torn:
    """Frames whose rows of some episodes cannot be read."""

    def __init__(self, lengths: list[int], torn: set[int]) -> None:
        self.lengths = np.array(lengths)
        self.starts = np.cumsum(self.lengths) - self.lengths
        self.torn = torn

    @property
    def array(self) -> "Torn":
        return self

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        e = int(np.searchsorted(self.starts, rows[0], side="right")) - 1
        if e in self.torn:
            raise UserError(f"episode {e} is torn")
        return np.broadcast_to(
            np.asarray(rows, np.uint8)[:, None, None, None], (len(rows), 2, 2, 3)
        ).copy()


def test_batches_are_the_same_from_decoded_frames_and_on_demand(root: Path) -> None:
    lazy, stored = (TripletReader(sampler(opened(root, cache)), 8, 3) for cache in (False, True))
    for step in (0, 1, 2, 7):
        batch = lazy(step, 0, 1)
        assert batch.shape == (3, 8, 8, 8, 3) and batch.dtype == torch.uint8
        assert torch.equal(batch, stored(step, 0, 1))
    assert not torch.equal(lazy(0, 0, 1), lazy(1, 0, 1))


@pytest.mark.slow
def test_workers_read_the_same_batches_and_ranks_share_them(root: Path) -> None:
    alone = TripletReader(sampler(opened(root)), 6, 3)
    whole = [alone(step, 0, 1) for step in range(4, 9)]
    reader = TripletReader(sampler(opened(root)), 6, 3, workers=2)
    for step in (4, 5, 6):
        assert torch.equal(reader(step, 0, 1), whole[step - 4])
    # Back by one, as when training resumes in mid-epoch, and as the second of two ranks.
    for step in (6, 7):
        assert torch.equal(reader(step, 1, 2), whole[step - 4][:, 1::2])
    reader.close()


def test_a_sample_is_the_same_for_any_number_of_ranks() -> None:
    frames = Torn([30, 40, 25], {1})
    told: dict[int, int] = {}
    for ranks in (1, 2, 3):
        count = 0

        def note(part: int, episode: int, why: str, replaced: int) -> None:
            nonlocal count
            assert (part, episode, why, replaced) == (0, 1, "episode 1 is torn", 1)
            count += replaced

        reader = TripletReader(
            TripletSampler([frames], np.arange(3), GapConfig()), 12, 5, on_fault=note
        )
        parts = [reader(9, rank, ranks) for rank in range(ranks)]
        if ranks == 1:
            whole = parts[0]
        assert all(torch.equal(part, whole[:, rank::ranks]) for rank, part in enumerate(parts))
        told[ranks] = count
    assert told[1] == told[2] == told[3] > 0


def test_only_the_broken_samples_change_and_stay_in_their_source() -> None:
    """Whether the damage is known before or found while reading."""
    lengths = [30, 40, 25]
    draw = [
        TripletSampler([Torn(lengths, torn)], np.arange(3), GapConfig())
        for torn in (set(), {1}, {1})
    ]
    draw = [
        TripletSampler.mix(
            [own, TripletSampler([Torn([90], set())], np.arange(1), GapConfig())], [1, 1]
        )
        for own in draw
    ]
    whole, found, known = (
        TripletReader(own, 64, 5, broken)
        for own, broken in zip(draw, (None, None, [{1}, set()]), strict=True)
    )
    sources, rows = draw[0].draw(64, np.random.default_rng([5, 2]))
    hit = torch.from_numpy((sources == 0) & (rows[:, 0] >= 30) & (rows[:, 0] < 70))
    a, b, c = (reader(2, 0, 1) for reader in (whole, found, known))
    assert hit.any() and torch.equal(b, c)
    assert torch.equal(a[:, ~hit], b[:, ~hit])
    replaced = b[0, hit, 0, 0, 0]
    assert ((replaced < 30) | (replaced >= 70)).all() and (b[2, hit, 0, 0, 0] < 95).all()


def test_reading_stops_with_the_reason_if_all_triplets_are_broken() -> None:
    with pytest.raises(UserError, match=r"50 triplets in a row were broken: episode 0 is torn"):
        TripletReader(TripletSampler([Torn([30], {0})], np.arange(1), GapConfig()), 4, 0)(0, 0, 1)


def test_an_exception_of_on_fault_ends_the_reading() -> None:
    def stop(*_: object) -> None:
        raise UserError("too much")

    reader = TripletReader(
        TripletSampler([Torn([30, 30], {0})], np.arange(2), GapConfig()), 16, 0, on_fault=stop
    )
    with pytest.raises(UserError, match="too much"):
        reader(0, 0, 1)


def test_a_video_that_breaks_later_is_reported_by_the_workers(root: Path, tmp_path: Path) -> None:
    for e in range(4):
        write_video(tmp_path / f"{e}.mp4", 20, e)
    (source,) = open_sources([SourceConfig(str(tmp_path))], 8, False)
    (tmp_path / "2.mp4").unlink()
    seen: set[tuple[int, int]] = set()
    own = TripletSampler(source.frames, np.arange(4), GapConfig())
    reader = TripletReader(
        own,
        16,
        0,
        workers=1,
        on_fault=lambda part, episode, why, replaced: seen.add((part, episode)),
    )
    batch = reader(0, 0, 1)
    reader.close()
    assert batch.shape == (3, 16, 8, 8, 3) and seen == {(0, 2)}


class Stuck(Torn):
    """Frames that are never read to the end, as from a disk that does not answer."""

    size = 2

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        time.sleep(600)
        return super().__getitem__(rows)


def stuck() -> TripletReader:
    own = TripletSampler([Stuck([30], set())], np.arange(1), GapConfig())
    return TripletReader(own, 4, 0, workers=1)


def test_a_small_shared_memory_is_named_before_workers_start(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(5_000))
    reader = TripletReader(sampler(opened(root)), 8, 3, workers=2)
    with pytest.raises(UserError, match=r"2 workers need .* --shm-size 1g\), or .* --workers 0"):
        reader(0, 0, 1)
    assert not multiprocessing.active_children()
    assert TripletReader(sampler(opened(root)), 8, 3)(0, 0, 1).shape == (3, 8, 8, 8, 3)


class Failing(Torn):
    """Frames whose reading ends with an error of the machine."""

    size = 2

    def __init__(self, error: Exception) -> None:
        super().__init__([30], set())
        self.error = error

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        raise self.error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ESTALE, "Stale file handle", "/net/x.mp4"), "'/net/x.mp4': .*mount"),
        (OSError(errno.EIO, "Input/output error", "/net/x.mp4"), "'/net/x.mp4': .*disk"),
        (OSError(errno.EMFILE, "Too many open files"), "ulimit -n"),
        (MemoryError("Unable to allocate 9 GiB"), "too little memory .Unable to allo"),
    ],
    ids=["stale drive", "disk", "open files", "memory"],
)
def test_an_error_of_the_machine_while_reading_is_one_line(error: Exception, words: str) -> None:
    own = TripletSampler([Failing(error)], np.arange(1), GapConfig())
    with pytest.raises(UserError, match=words) as told:
        TripletReader(own, 4, 0, workers=0)(0, 0, 1)
    assert "\n" not in str(told.value)


@pytest.mark.slow
def test_a_killed_worker_ends_the_reading_with_one_line(root: Path) -> None:
    # PyTorch's handler of SIGCHLD may raise anywhere in this thread, the executor's exit included.
    with (
        pytest.raises((UserError, RuntimeError)) as raised,
        ThreadPoolExecutor(1) as thread,  # as in training, where a thread reads ahead
    ):
        reader = TripletReader(sampler(opened(root)), 8, 3, workers=1)
        thread.submit(reader, 0, 0, 1).result()
        (worker,) = multiprocessing.active_children()
        os.kill(worker.pid, signal.SIGKILL)  # type: ignore[arg-type]
        for step in range(1, 9):  # some may be read already
            thread.submit(reader, step, 0, 1).result()
    line = explain(raised.value)
    assert line and "a process that reads videos has ended" in line
    assert "\n" not in line


@pytest.mark.slow
def test_a_batch_that_never_comes_ends_with_the_reason_or_by_closing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with ThreadPoolExecutor(1) as thread:
        reader = stuck()
        waiting = thread.submit(reader, 0, 0, 1)
        while not multiprocessing.active_children():
            time.sleep(0.05)
        reader.close()
        with pytest.raises(UserError, match="closed"):
            waiting.result()
        monkeypatch.setattr(triplet_reader, "PATIENCE", 2.0)
        with pytest.raises(UserError, match="no batch for .* --shm-size 1g.*--workers 0"):
            stuck()(0, 0, 1)
