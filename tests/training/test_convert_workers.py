"""Recordings read by several processes become the files that one process makes of them."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from collect_fixtures import content
from convert_fixtures import run
from test_convert_calvin import write_calvin
from test_convert_libero import write_libero
from test_convert_rlds import write as write_rlds
from test_convert_rosbag import our_bag

from alam_core.errors import UserError
from alam_training.commands.convert import OPENERS, ConvertConfig
from alam_training.converters.source import BrokenEpisode, Request

MAKERS: dict[str, Callable[[Path], Any]] = {
    "calvin": write_calvin,
    "libero": lambda folder: (folder.mkdir(), write_libero(folder / "a.hdf5")),
    "rlds": lambda folder: write_rlds(folder / "toy/1.0.0"),
    "rosbag": lambda folder: our_bag(folder / "first"),
}


@pytest.mark.parametrize("source", MAKERS)
def test_the_recordings_of_every_format_can_be_sent_to_another_process(source, tmp_path) -> None:
    MAKERS[source](tmp_path / "in")
    request = Request(tmp_path / "in", {}, [], [], "", 16, 5.0, "header", "")
    recordings = list(OPENERS[source](request).recordings)  # type: ignore[index]
    for recording in recordings:
        sent = pickle.loads(pickle.dumps(recording.read))()
        own = recording.read()
        assert vars(sent).keys() == vars(own).keys() and sent.task == own.task
        np.testing.assert_equal(sent.images, own.images)
        np.testing.assert_array_equal(sent.state, own.state)
    assert recordings


def write_with_a_broken_one(folder: Path) -> Path:
    folder.mkdir()
    for name in ("a", "c", "d"):
        write_libero(folder / f"{name}.hdf5")
    (folder / "b.hdf5").write_bytes(b"no HDF5")
    return folder


def test_workers_give_the_files_of_one_process_and_count_what_is_broken(tmp_path) -> None:
    folder = write_with_a_broken_one(tmp_path / "in")
    found = {}
    for workers in (0, 2):
        output = tmp_path / str(workers)
        _, summary = run("libero", folder, output, workers=workers, max_broken=0.5)
        assert (summary.episodes, list(summary.broken)) == (9, ["b.hdf5"])
        found[workers] = content(output)
    assert found[0] and found[0] == found[2]
    _, summary = run("libero", folder, tmp_path / "few", workers=2, max_episodes=2)
    assert summary.episodes == 2


def test_a_source_that_is_broken_throughout_ends_the_workers_run(tmp_path) -> None:
    folder = write_rlds(tmp_path / "toy")
    for shard in folder.glob("*.tfrecord*"):
        data = bytearray(shard.read_bytes())
        data[len(data) // 4] ^= 255
        shard.write_bytes(bytes(data))
    with pytest.raises(UserError, match="of 3 episodes of '.*' cannot be read"):
        run("rlds", folder, tmp_path / "out", fps=5.0, workers=2)
    assert not (tmp_path / "out").exists()


def test_ray_needs_workers() -> None:
    with pytest.raises(UserError, match="--ray needs --workers 1 or more"):
        ConvertConfig("libero", "in", "out", ray="auto")
    with pytest.raises(BrokenEpisode, match="why"):
        raise pickle.loads(pickle.dumps(BrokenEpisode("why")))
