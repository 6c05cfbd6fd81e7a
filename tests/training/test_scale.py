"""Real training processes: two give the result of one, a killed and resumed run that of an
uninterrupted one.
"""

import json
import signal
import time
from pathlib import Path

import pytest
import safetensors.torch
import torch

from alam_core.files import temporaries
from alam_training.benchmarks.scale import (
    LOSSES,
    OBJECTIVES,
    ROUNDING_ONLY,
    SMALL_POLICY,
    compare,
    curve,
    launch,
    make_data,
    pretrain,
    start,
    train_despite_kills,
)
from alam_training.loop.state import STATE_FILE

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("data") / "square")


@pytest.fixture(scope="module")
def one(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "one"
    pretrain(data, run, OBJECTIVES["whitened"])
    return run


def uses_all_losses(run: Path) -> bool:
    """Whether the codebook and the algebraic losses took part in the run; without them, equal runs
    would prove little.
    """
    terms = curve(run)
    return (
        terms["vq"][0][1] == 0
        and terms["vq"][-1][1] > 0.01
        and terms["total"][-1][1] > terms["rec"][-1][1] + 0.01
    )


@pytest.mark.parametrize("sharded", ["false", "true"])
@pytest.mark.timeout(900)
def test_two_processes_follow_the_loss_curve_of_one(
    data: Path, one: Path, tmp_path: Path, sharded: str
) -> None:
    pretrain(
        data, tmp_path / "two", {**OBJECTIVES["whitened"], "loop.sharded": sharded}, processes=2
    )
    assert uses_all_losses(one)
    assert [step for step, _ in curve(tmp_path / "two")["total"]] == list(range(1, 31))
    terms = compare(one, tmp_path / "two", ROUNDING_ONLY)["terms"]
    # One latent that rounding sends to another, equally near entry of the codebook shows in vq at
    # once, in the others later.
    assert max(terms[name] for name in LOSSES if name not in ("vq", "total")) < 2e-3, terms
    terms = compare(one, tmp_path / "two")["terms"]
    assert max(terms[name] for name in LOSSES) < 5e-2, (
        terms
    )  # statistics of each process alone differ by 0.08 to 0.29
    states = [safetensors.torch.load_file(run / STATE_FILE) for run in (one, tmp_path / "two")]
    assert {name: tensor.shape for name, tensor in states[0].items()} == {
        name: tensor.shape for name, tensor in states[1].items()
    }


@pytest.mark.timeout(900)
def test_an_interrupted_sharded_run_resumes_exactly(data: Path, tmp_path: Path) -> None:
    options = {
        **OBJECTIVES["relative"],
        "loop.sharded": "true",
        "loop.save_every": "4",
        "loop.steps": "24",
        "loop.mixed_precision": "bf16",
    }
    pretrain(data, tmp_path / "unbroken", options, processes=2)
    process = start(data, tmp_path / "broken", options, processes=2)
    while process.poll() is None and not (tmp_path / "broken" / STATE_FILE).exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert not (tmp_path / "broken" / "model").exists(), "it was over before it was interrupted"
    with safetensors.safe_open(tmp_path / "broken" / STATE_FILE, "pt") as file:
        assert 4 <= json.loads(file.metadata()["run"])["step"] < 24
    pretrain(data, tmp_path / "broken", options, processes=2)
    difference = compare(tmp_path / "unbroken", tmp_path / "broken")
    assert difference["weights_equal"] and not any(difference["terms"].values()), difference


@pytest.mark.timeout(900)
def test_a_run_killed_at_any_time_ends_like_an_uninterrupted_one(
    data: Path, tmp_path: Path
) -> None:
    options = {
        **OBJECTIVES["paper"],
        "loop.save_every": "2",
        "loop.log_every": "3",
        "loop.steps": "36",
    }
    pretrain(data, tmp_path / "unbroken", options)
    kills = train_despite_kills(data, tmp_path / "killed", options, kills=4, seed=int(time.time()))
    assert kills["kills"] >= 2, kills
    difference = compare(tmp_path / "unbroken", tmp_path / "killed")
    assert difference["weights_equal"] and not any(difference["terms"].values()), difference
    assert not temporaries(tmp_path / "killed" / STATE_FILE)
    states = [
        (run / STATE_FILE).read_bytes() for run in (tmp_path / "unbroken", tmp_path / "killed")
    ]
    assert states[0] == states[1]
    assert torch.isfinite(
        torch.tensor([value for _, value in curve(tmp_path / "killed")["total"]])
    ).all()


@pytest.mark.timeout(900)
def test_two_processes_train_a_policy_like_one(data: Path, one: Path, tmp_path: Path) -> None:
    options = {**SMALL_POLICY, "data": str(data), "encoder": str(one / "model")}
    for name, processes in (("one", 1), ("two", 2)):
        process = launch("finetune", {**options, "run": str(tmp_path / name)}, processes)
        output, _ = process.communicate()
        assert process.returncode == 0, output
    curves = [curve(tmp_path / name) for name in ("one", "two")]
    for term in ("total", "action", "third_person"):
        steps, values = ([value for _, value in of[term]] for of in curves)
        assert len(steps) == 20 and steps[0] > 0.1
        assert max(abs(a - b) / abs(a) for a, b in zip(steps, values, strict=True)) < 1e-3, (
            term,
            steps,
            values,
        )


def test_a_batch_that_two_processes_cannot_share_evenly_is_refused(
    data: Path, tmp_path: Path
) -> None:
    process = start(data, tmp_path / "run", {"batch": "15"}, processes=2)
    output, _ = process.communicate()
    assert process.returncode != 0
    assert (
        "error: a batch of 15 cannot be shared evenly by 2 process(es)" in output
        and "choose a multiple of 2" in output
    )
