"""A disk that becomes full while a data set is written: whole episodes are kept."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from alam_core import reserve
from alam_core.data.lerobot import LeRobotDataset, writer
from alam_core.errors import UserError, explain
from alam_training.episodes.dataset_run import DatasetRun, DiskFull

RECORD = "meta/run.json"
ROOT = Path(__file__).resolve().parents[2]
# In a mount namespace of its own: a disk of 3 MB, and a conversion that does not fit on it.
ON_A_SMALL_DISK = """
mount -t tmpfs -o size=3m tmpfs "$1" && "$2" -c '
import sys
from alam_core.data.lerobot import writer
from alam_core.errors import run_main
from alam_training.commands.convert import main
writer.RESERVE = 1024**2
sys.argv = ["convert", *sys.argv[1:]]
run_main(main)' --source libero --input "$3" --output "$1/set"
status=$?
cp -r "$1/set" "$4"; ls -A "$1"
exit $status
"""


class SmallDisk:
    """Lets ``os.write`` fail as on a disk of ``size`` bytes, on which the reserve counts too."""

    def __init__(self, folder: Path, size: int, code: int) -> None:
        self.folder, self.size, self.code = folder, size, code

    def write(self, descriptor: int, data: memoryview, write=os.write) -> int:
        files = [path for path in self.folder.rglob("*") if path.is_file()]
        if sum(path.stat().st_size for path in files) + len(data) > self.size:
            raise OSError(self.code, os.strerror(self.code))
        return write(descriptor, data)


def fill(run: DatasetRun, episodes: int) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (20, 48, 48, 3), np.uint8)
    for seed in range(episodes):
        run.open({"top": noise}, 10, ["x"], ["u"], "toy")
        run.add({"top": noise}, np.zeros((20, 1)), np.zeros((20, 1)), "go", {"seed": seed})


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_whole_episodes_are_kept_when_a_write_meets_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setattr(writer, "RESERVE", 2**20)
    monkeypatch.setattr(reserve.os, "write", SmallDisk(tmp_path, 2**21, code).write)
    run = DatasetRun(tmp_path / "set", RECORD, {})
    with pytest.raises(DiskFull, match=r"is full: the \d+ episodes .* are kept; .* --resume"), run:
        fill(run, 100)
    dataset = LeRobotDataset(tmp_path / "set")
    assert 0 < dataset.num_episodes == run.num_episodes < 100
    for e in range(dataset.num_episodes):
        assert dataset.frames(e, "top", range(20)).shape == (20, 48, 48, 3)
    assert (tmp_path / "set" / RECORD).is_file() and not run.interrupted
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_a_disk_without_space_for_another_episode_ends_the_run_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    allocate = os.posix_fallocate

    def limited(descriptor: int, offset: int, size: int) -> None:
        if size > writer.RESERVE:
            raise OSError(errno.ENOSPC, "full")
        allocate(descriptor, offset, size)

    monkeypatch.setattr(reserve.os, "posix_fallocate", limited)
    run = DatasetRun(tmp_path / "set", RECORD, {})
    with pytest.raises(DiskFull), run:
        fill(run, 2)
    assert LeRobotDataset(tmp_path / "set").num_episodes == 1


def test_a_full_disk_is_refused_before_the_first_episode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(reserve.os, "posix_fallocate", full)
    with pytest.raises(UserError, match="has less than 32 MB left: free some"):
        fill(DatasetRun(tmp_path / "set", RECORD, {}), 1)
    assert not list(tmp_path.iterdir())


def test_a_file_system_without_reserves_and_a_limit_on_file_sizes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "not supported")

    monkeypatch.setattr(reserve.os, "posix_fallocate", unsupported)
    with DatasetRun(tmp_path / "set", RECORD, {}) as run:
        fill(run, 1)
    monkeypatch.setattr(reserve.os, "write", SmallDisk(tmp_path, 2**17, errno.EFBIG).write)
    with pytest.raises(OSError) as error, DatasetRun(tmp_path / "other", RECORD, {}) as run:
        fill(run, 100)
    assert "File too large; raise the limit" in str(explain(error.value))
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_convert_on_a_real_disk_that_is_too_small(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    rng = np.random.default_rng(0)
    with h5py.File(tmp_path / "demos.hdf5", "w") as file:
        for demo in range(100):
            group = file.create_group(f"data/demo_{demo}")
            group["actions"], group["obs/ee_states"] = np.zeros((20, 7)), np.zeros((20, 6))
            group["obs/gripper_states"] = np.zeros((20, 2))
            group["obs/agentview_rgb"] = rng.integers(0, 256, (20, 48, 48, 3), np.uint8)
    (tmp_path / "disk").mkdir()
    unshare = ["unshare", "--map-root-user", "--mount"]
    probe = [*unshare, "mount", "-t", "tmpfs", "tmpfs", str(tmp_path / "disk")]
    if not shutil.which("unshare") or subprocess.run(probe, capture_output=True).returncode:
        pytest.skip("no disk can be mounted here")
    paths = [tmp_path / "disk", Path(sys.executable), tmp_path / "demos.hdf5", tmp_path / "kept"]
    done = subprocess.run(
        [*unshare, "bash", "-c", ON_A_SMALL_DISK, "-", *map(str, paths)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'training'}"},
    )
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert "is full: the" in line and "--resume true continues" in line
    kept = LeRobotDataset(tmp_path / "kept")
    assert 0 < kept.num_episodes < 100
    assert kept.frames(kept.num_episodes - 1, "third_person", [19]).shape == (1, 48, 48, 3)
    assert done.stdout.splitlines()[-1] == "set"  # and nothing else is left on the disk
