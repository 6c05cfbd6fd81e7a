"""Episodes on a Ray cluster of two nodes: the results of one process, whatever dies, and errors of
one line.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from collect_fixtures import Walker, collect_line, content, make_line
from convert_fixtures import run
from policy_fixtures import tiny_policy
from test_convert_workers import write_with_a_broken_one
from worker_fixtures import add, die, die_once, divide, make_number, stay
from world_fixtures import make_blobs

from alam_core.errors import UserError
from alam_training.commands.collect import CollectConfig, collect
from alam_training.episodes.evaluation import EvaluateConfig, episodes
from alam_training.episodes.workers import workers

pytest.importorskip("ray")
from ray.cluster_utils import Cluster

# In one process of a parallel run: the clusters of two would disturb each other.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.xdist_group("ray")]
ROOT = Path(__file__).resolve().parents[2]
HOST = "127.0.0.2"  # Ray replaces 127.0.0.1 by this host's address in the network
NODE = {"num_cpus": 2, "node_ip_address": HOST, "object_store_memory": 100_000_000}
DEADLINE = 300.0  # s, of everything that a busy machine may delay


def until(condition: Callable[[], Any]) -> Any:
    """The first value of ``condition()`` that is true."""
    end = time.monotonic() + DEADLINE
    while not (value := condition()):
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)
    return value


def runs(pid: int) -> bool:
    """Whether a process runs; one that has ended but was not waited for does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def workers_left() -> list[psutil.Process]:
    """The cluster's actors that run. Ray names a process after its actor; it is a child of its
    node's process, whose arguments name the cluster's folder.
    """
    found = []
    for process in psutil.process_iter(["cmdline", "ppid"]):
        if "RayWorker" in " ".join(process.info["cmdline"] or ()) and runs(process.pid):
            with contextlib.suppress(psutil.NoSuchProcess):
                parent = psutil.Process(process.info["ppid"]).cmdline()
                found += [process] * (os.environ["RAY_TMPDIR"] in " ".join(parent))
    return found


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    before = {process.pid for process in psutil.process_iter()}
    folder = tempfile.mkdtemp(prefix="ray")  # a short path, as sockets need
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # what the workers import
        patch.setenv("RAY_TMPDIR", folder)
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.delenv("RAY_ADDRESS", raising=False)
        cluster = Cluster(
            initialize_head=True, head_node_args={**NODE, "num_cpus": 1, "include_dashboard": False}
        )
        try:
            cluster.add_node(**NODE)
            yield cluster
        finally:
            cluster.shutdown()
            shutil.rmtree(folder, ignore_errors=True)
    until(
        lambda: (
            not [
                process
                for process in psutil.process_iter(["cmdline"])
                if process.pid not in before
                and folder in " ".join(process.info["cmdline"] or ())
                and runs(process.pid)
            ]
        )
    )


@pytest.fixture(scope="module")
def blob_policy(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_policy().save_pretrained(tmp_path_factory.mktemp("policy") / "policy"))


def played(policy: str, **changes: Any) -> list[dict[str, Any]]:
    config = EvaluateConfig(policy, "blob", 7, 0, 4, videos=1, **changes)
    results = sorted(episodes(config, make_blobs), key=lambda result: result.seed)
    return [{**vars(result), "frames": result.frames.tolist()} for result in results]


def test_evaluation_gives_the_results_of_one_process(
    cluster: Cluster, blob_policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = played(blob_policy, workers=0)
    assert [result["success"] for result in expected] == [True, False, False] * 2 + [True]
    assert played(blob_policy, workers=2) == expected
    monkeypatch.chdir(Path(blob_policy).parent)  # a relative path means the same to the workers
    assert played("policy", workers=3, ray=cluster.address) == expected


def test_collection_gives_the_files_of_one_process(cluster: Cluster, tmp_path: Path) -> None:
    for name, settings in (
        ("none", {"workers": 0}),
        ("local", {"workers": 2}),
        ("ray", {"workers": 3, "ray": cluster.address}),
    ):
        collect_line(tmp_path / name, **settings)
    assert content(tmp_path / "none")
    assert content(tmp_path / "none") == content(tmp_path / "local") == content(tmp_path / "ray")
    collect_line(tmp_path / "parts", episodes=3)
    resumed = collect_line(tmp_path / "parts", resume=True, workers=2, ray=cluster.address)
    assert resumed.extras["seed"] == [1, 2, 3, 4, 6, 7]


FREE = 2  # the last seed that passes a closed gate


class Gate:
    """Notes in a folder which seed begins on which node, and lets no seed above FREE pass before
    the folder has the file ``open``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def begun(self, node: str = "*", seed: str = "*") -> list[Path]:
        return list(self.folder.glob(f"{node}-{seed}-*"))

    def pass_(self, seed: int) -> None:
        import ray

        node = ray.get_runtime_context().get_node_id()
        (self.folder / f"{node}-{seed}-{os.getpid()}").touch()
        until(lambda: seed <= FREE or (self.folder / "open").exists())


def seed_of(path: Path) -> int:
    return int(path.name.split("-")[1])


def make_gated_line(name: str, size: int) -> Any:
    world, gate = make_line("line", size), Gate(Path(name))
    reset = world.reset
    world.reset = lambda seed: [gate.pass_(seed), reset(seed)][1]  # type: ignore[method-assign]
    return world


def test_the_jobs_of_a_machine_that_dies_run_elsewhere(cluster: Cluster, tmp_path: Path) -> None:
    collect_line(tmp_path / "expected")
    (tmp_path / "gate").mkdir()
    gate = Gate(tmp_path / "gate")
    doomed = cluster.add_node(**NODE)

    def held() -> list[Path]:
        """What the doomed node began and cannot end."""
        return [path for path in gate.begun(doomed.node_id) if seed_of(path) > FREE]

    def kill() -> None:
        until(held)
        cluster.remove_node(doomed, allow_graceful=False)
        until(lambda: not any(runs(int(path.name.split("-")[2])) for path in held()))
        (gate.folder / "open").touch()

    killer = threading.Thread(target=kill)
    killer.start()
    config = CollectConfig(
        world=str(gate.folder),
        output=str(tmp_path / "set"),
        episodes=6,
        first_seed=1,
        image_size=8,
        hold_steps=3,
        workers=5,
        ray=cluster.address,
    )
    collect(config, make_gated_line, Walker)
    killer.join(DEADLINE)
    assert not killer.is_alive()
    assert held() and all(len(gate.begun(seed=str(seed_of(path)))) > 1 for path in held())
    expected, found = content(tmp_path / "expected"), content(tmp_path / "set")
    assert any(name.endswith(".mp4") for name in expected)
    assert found == expected


@pytest.mark.parametrize("ray", [False, True])
def test_errors_of_a_job_arrive_as_they_are(cluster: Cluster, ray: bool) -> None:
    address = cluster.address if ray else ""
    with workers(2, make_number, 1, ray=address) as submit:
        with pytest.raises(UserError, match=r"^cannot add -1$"):
            submit(add, -1).result(DEADLINE)
        with pytest.raises(ZeroDivisionError):
            submit(divide, 0).result(DEADLINE)
        assert submit(add, 2).result(DEADLINE) == 3
    with workers(3, make_number, -1, ray=address) as submit:

        def message() -> str:
            error = submit(add, 1).exception(DEADLINE)
            assert isinstance(error, UserError)
            assert str(error).startswith("no number below 0, such as -1") and "\n" not in str(error)
            return str(error)

        if ray:  # at least one worker is on another node than this program
            until(lambda: "(on the machine '" in message())
        else:
            assert message() == "no number below 0, such as -1"


def test_conversion_gives_the_files_of_one_process(cluster: Cluster, tmp_path: Path) -> None:
    folder = write_with_a_broken_one(tmp_path / "in")
    for name, settings in (("one", {}), ("ray", {"workers": 2, "ray": cluster.address})):
        _, summary = run("libero", folder, tmp_path / name, max_broken=0.5, **settings)
        assert list(summary.broken) == ["b.hdf5"]
    assert content(tmp_path / "one") == content(tmp_path / "ray") != {}


def test_a_job_is_run_again_when_its_worker_dies(cluster: Cluster, tmp_path: Path) -> None:
    with workers(3, make_number, 1, ray=cluster.address) as submit:
        running = [submit(die_once, tmp_path, value) for value in range(2)]
        assert [future.result(DEADLINE) for future in running] == [1, 2]
        with pytest.raises(UserError, match="^a job's worker died 3 times, .* Ray's logs there$"):
            submit(die).result(DEADLINE)


def test_the_block_ends_the_jobs_that_run(cluster: Cluster, tmp_path: Path) -> None:
    with (
        pytest.raises(KeyboardInterrupt),
        workers(3, make_number, 1, ray=cluster.address) as submit,
    ):
        for _ in range(5):
            submit(stay, tmp_path)
        until(lambda: len(list(tmp_path.iterdir())) == 3)
        until(lambda: len(workers_left()) == 3)
        os.kill(os.getpid(), signal.SIGINT)
        until(lambda: False)
    until(lambda: not workers_left())


def test_a_killed_program_leaves_no_worker(cluster: Cluster, tmp_path: Path) -> None:
    program = (
        "import pathlib\nfrom worker_fixtures import make_number, stay\n"
        "from alam_training.episodes.workers import workers\n"
        f"with workers(2, make_number, 1, ray='{cluster.address}') as submit:\n"
        f"    submit(stay, pathlib.Path('{tmp_path}')).result()"
    )
    process = subprocess.Popen([sys.executable, "-c", program])
    until(lambda: list(tmp_path.iterdir()))
    until(lambda: len(workers_left()) == 2)
    process.kill()
    process.wait(DEADLINE)
    until(lambda: not workers_left())


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--world", "nowhere"], "nowhere"),
        (["--workers", "99"], "CPUs, fewer than --workers 99"),
        (["--workers", "0"], "--ray needs --workers 1 or more"),
        (["--ray", "127.0.0.1:9"], "no Ray cluster answers"),
        (["--ray", "nonsense"], "no Ray cluster answers"),
    ],
)
def test_mistakes_give_one_line(
    cluster: Cluster, tmp_path: Path, flags: list[str], words: str
) -> None:
    command = ["training/collect.py", "--output", str(tmp_path / "set"), "--ray", cluster.address]
    done = subprocess.run(
        [sys.executable, *command, *flags], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("error:") and words in done.stderr


def test_a_gpu_is_asked_for_where_the_policy_needs_one(cluster: Cluster, blob_policy: str) -> None:
    with pytest.raises(UserError, match="the cluster has no GPU: leave out --device cuda"):
        played(blob_policy, ray=cluster.address, device="cuda")


def test_ray_is_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with (
        pytest.raises(UserError, match="needs the package Ray .*: pip install ray$"),
        workers(1, make_number, 1, ray="auto"),
    ):
        pass
