"""The training loop: resuming is exact, an interruption saves, the learning rate and the average
follow their definitions.
"""

import os
import signal
import time
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from alam_core.errors import UserError
from alam_core.files import replacing_file
from alam_training.benchmarks.scale import curve
from alam_training.loop.config import LoopConfig, OptimConfig
from alam_training.loop.gradients import shard_rows
from alam_training.loop.optim import learning_rate
from alam_training.loop.seeds import step_rng
from alam_training.loop.state import STATE_FILE
from alam_training.loop.train import TrainResult, train


class Noisy(nn.Module):
    """A regression with dropout, so that a wrong random state shows."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(4, 16), nn.Dropout(0.3), nn.GELU(), nn.Linear(16, 1))
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        self.seen += 1
        loss = (self.net(x) - y).square().mean()
        return {"total": loss, "again": loss}


def batch_at(step: int, rank: int, ranks: int) -> dict[str, Tensor]:
    x = torch.from_numpy(step_rng(7, step, rank).normal(size=(8, 4))).float()
    return {"x": x, "y": x.sum(1, keepdim=True)}


def run(folder: Path, config: LoopConfig, **more: object) -> TrainResult:
    # TensorBoard orders the log files of a folder by the second in their names.
    logs = [int(file.name.split(".")[3]) for file in folder.glob("**/*tfevents*")]
    while logs and int(time.time()) <= max(logs):
        time.sleep(0.01)
    losses = more.pop("losses", lambda model, batch: model(**batch))
    return train(Noisy(), batch_at, losses, folder, config, **more)  # type: ignore[arg-type]


def config(**fields: object) -> LoopConfig:
    return LoopConfig(
        **{
            "steps": 12,
            "log_every": 3,
            "save_every": 100,
            "optim": OptimConfig(lr=1e-2, warmup_steps=3),
            "cpu": True,
            **fields,
        }
    )  # type: ignore[arg-type]


def test_an_interrupted_and_resumed_run_equals_an_uninterrupted_one_bit_for_bit(
    tmp_path: Path,
) -> None:
    uninterrupted = run(tmp_path / "a", config())
    count = 0

    def stopping(model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        nonlocal count
        count += 1
        if count == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return model(**batch)

    first = run(tmp_path / "b", config(), losses=stopping)
    assert (first.stopped, first.step) == ("interrupted", 5)
    second = run(tmp_path / "b", config())
    assert (second.stopped, second.step) == ("", 12)
    assert all(
        torch.equal(a, b)
        for a, b in zip(
            uninterrupted.model.state_dict().values(),
            second.model.state_dict().values(),
            strict=True,
        )
    )
    assert (tmp_path / "a" / STATE_FILE).read_bytes() == (tmp_path / "b" / STATE_FILE).read_bytes()
    assert curve(tmp_path / "a") == curve(tmp_path / "b")
    assert [step for step, _ in curve(tmp_path / "b")["total"]] == [3, 6, 9, 12]


def test_the_log_keeps_the_entry_at_which_the_run_stopped(tmp_path: Path) -> None:
    run(tmp_path / "a", config(save_every=3))
    count = 0

    def failing(model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        nonlocal count
        count += 1
        if count == 8:
            raise RuntimeError("power failure")
        return model(**batch)

    with pytest.raises(RuntimeError, match="power failure"):
        run(tmp_path / "b", config(save_every=3), losses=failing)
    run(tmp_path / "b", config(save_every=3))
    assert curve(tmp_path / "a") == curve(tmp_path / "b")


def test_training_reduces_the_loss_and_returns_the_average_in_eval_mode(tmp_path: Path) -> None:
    metrics: list[dict[str, float]] = []

    def evaluate(model: nn.Module, step: int) -> dict[str, float]:
        assert not model.training
        metrics.append({"loss": float(model(**batch_at(10_000, 0, 1))["total"]), "step": step})
        return metrics[-1]

    result = run(tmp_path, config(steps=150, eval_every=50), evaluate=evaluate)
    assert [entry["step"] for entry in metrics] == [50, 100, 150]
    assert metrics[-1]["loss"] < 0.5 * metrics[0]["loss"]
    assert not result.model.training


def test_time_limit_saves_and_can_be_resumed(tmp_path: Path) -> None:
    first = run(tmp_path, config(max_minutes=1e-9))
    assert (first.stopped, first.step) == ("time", 0)
    assert run(tmp_path, config()).step == 12


def test_state_of_a_different_run_is_refused_by_name(tmp_path: Path) -> None:
    run(tmp_path, config(), identity={"data": "x"})
    with pytest.raises(UserError, match="was trained with loop.optim.lr = 0.01, not 0.02; choose"):
        run(tmp_path, config(optim=OptimConfig(lr=2e-2, warmup_steps=3)), identity={"data": "x"})
    with pytest.raises(UserError, match="was trained with run.data = 'x', not 'y'"):
        run(tmp_path, config(), identity={"data": "y"})
    assert run(tmp_path, config(resume=False), identity={"data": "y"}).step == 12


def test_what_a_killed_save_left_behind_is_ignored_and_removed(tmp_path: Path) -> None:
    uninterrupted = run(tmp_path / "a", config())
    run(tmp_path / "b", config(max_minutes=1e-9))
    state = tmp_path / "b" / STATE_FILE
    with replacing_file(state) as temporary:
        left = temporary
        temporary.write_bytes(state.read_bytes())
    left.write_bytes(state.read_bytes()[:100])
    seen: list[bool] = []

    def losses(model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        seen.append(left.exists())
        return model(**batch)

    resumed = run(tmp_path / "b", config(), losses=losses)
    assert seen == [False] * 12
    assert all(
        torch.equal(a, b)
        for a, b in zip(
            uninterrupted.model.state_dict().values(),
            resumed.model.state_dict().values(),
            strict=True,
        )
    )


def test_a_state_reaches_the_disk_before_the_old_one_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path, config(max_minutes=1e-9))
    done: list[str] = []
    fsync, replace = os.fsync, os.replace

    def noted_fsync(handle: int) -> None:
        name = Path(os.readlink(f"/proc/self/fd/{handle}")).name
        done.append("sync temporary" if ".tmp" in name else f"sync {name}")
        fsync(handle)

    def noted_replace(source: str | Path, target: str | Path) -> None:
        done.append("replace " + Path(target).name)
        replace(source, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    run(tmp_path, config(steps=12))
    assert done == ["sync temporary", f"replace {STATE_FILE}", f"sync {tmp_path.name}"]


def test_a_full_disk_leaves_the_last_state_intact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path, config(max_minutes=1e-9))
    before = (tmp_path / STATE_FILE).read_bytes()

    def full(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(UserError, match="No space left on device"):
        run(tmp_path, config())
    assert (tmp_path / STATE_FILE).read_bytes() == before


def test_a_log_that_cannot_be_written_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("alam_training.loop.train.SummaryWriter.add_scalar", full)
    with pytest.raises(UserError, match=r"the log in .* keeps step 0, and the same command"):
        run(tmp_path, config())


class Plain(nn.Linear):
    """A regression without randomness, whose loss is a mean over the batch, and a buffer that each
    forward pass moves.
    """

    def __init__(self) -> None:
        super().__init__(4, 1)
        nn.init.constant_(self.weight, 2.0)  # the truth is 1
        nn.init.zeros_(self.bias)
        self.register_buffer("seen", torch.zeros(()))

    def loss(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        self.seen += 1
        return {"total": (self(x) - y).square().mean()}


def test_accumulated_gradients_make_the_step_of_the_whole_batch(tmp_path: Path) -> None:
    results = [
        train(
            Plain(),
            batch_at,
            lambda model, batch: model.loss(**batch),
            tmp_path / str(n),
            config(accumulate=n),
            batch_size=8,
        ).model
        for n in (1, 4)
    ]
    assert (results[0].weight < 1.99).all()
    torch.testing.assert_close(results[0].weight, results[1].weight, rtol=1e-4, atol=1e-6)
    assert results[0].seen == results[1].seen == 12
    for (_, whole), (_, parts) in zip(
        curve(tmp_path / "1")["total"], curve(tmp_path / "4")["total"], strict=True
    ):
        assert parts == pytest.approx(whole, rel=1e-5)


def test_micro_batches_take_every_nth_row() -> None:
    batch = {"x": torch.arange(6), "y": [torch.arange(12).view(6, 2)]}
    shards = [shard_rows(batch, index, 3) for index in range(3)]
    assert [shard["x"].tolist() for shard in shards] == [[0, 3], [1, 4], [2, 5]]
    assert shards[1]["y"][0].tolist() == [[2, 3], [8, 9]]


def test_a_batch_that_cannot_be_shared_evenly_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        UserError,
        match="a batch of 8 cannot be shared evenly .* 3 gradient acc.*choose a multiple of 3",
    ):
        train(
            Plain(),
            batch_at,
            lambda model, batch: model.loss(**batch),
            tmp_path,
            config(accumulate=3),
            batch_size=8,
        )


def test_broken_state_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / STATE_FILE).write_bytes(b"nonsense")
    with pytest.raises(UserError, match="cannot be read"):
        run(tmp_path, config())


def test_loss_that_is_not_finite_stops(tmp_path: Path) -> None:
    def losses(model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: value * float("nan") for name, value in model(**batch).items()}

    with pytest.raises(UserError, match="not finite at step 3"):
        run(tmp_path, config(), losses=losses)


def test_schedule_rises_falls_and_ends_at_its_floor() -> None:
    optim = OptimConfig(lr=1.0, warmup_steps=10, final_lr_ratio=0.1)
    rates = [learning_rate(optim, step, 100) for step in range(100)]
    assert (
        rates[0] == pytest.approx(0.1)
        and rates[9] == pytest.approx(1.0)
        and rates[-1] == pytest.approx(0.1)
    )
    assert all(a <= b for a, b in zip(rates[:10], rates[1:10], strict=False))
    assert all(a >= b for a, b in zip(rates[10:], rates[11:], strict=False))


@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_mixed_precision_survives_evaluations_and_is_off_in_the_result(
    tmp_path: Path, ema_decay: float
) -> None:
    seen: list[torch.dtype] = []

    class Watching(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(super().forward(x).dtype)
            return super().forward(x)

    optim = OptimConfig(warmup_steps=1, ema_decay=ema_decay)
    loop = config(steps=4, eval_every=2, mixed_precision="bf16", optim=optim)
    x = torch.ones(3, 2)
    result = train(
        Watching(2, 2),
        lambda *_: x,
        lambda m, b: {"total": m(b).square().mean()},
        tmp_path,
        loop,
        lambda *_: {},
    )
    result.model(x)
    assert seen == [torch.bfloat16] * 4 + [torch.float32]


def test_bf16_keeps_weights_average_and_moments_in_float32(tmp_path: Path) -> None:
    """So that steps too small for bfloat16 add up."""
    optim = OptimConfig(lr=1e-4, warmup_steps=1, weight_decay=0)
    loop = config(steps=20, mixed_precision="bf16", optim=optim)
    result = train(Plain(), batch_at, lambda model, batch: model.loss(**batch), tmp_path, loop)
    assert (result.model.weight < 2).all() and (result.model.weight > 2 - 2**-8).all(), (
        "bfloat16 has no number so near to 2"
    )
    tensors = safetensors.torch.load_file(tmp_path / STATE_FILE)
    assert {name.split(".")[0] for name in tensors} == {"model", "average", "optimizer"}
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}


def test_a_run_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot make the run folder .*file'"):
        run(tmp_path / "file", config())


@pytest.mark.parametrize("save_every", [2, 100])
def test_a_state_whose_loss_is_not_finite_is_never_saved(tmp_path: Path, save_every: int) -> None:
    """Neither by a save between two log entries nor by an interruption."""
    run(tmp_path, config(max_minutes=1e-9))
    before = (tmp_path / STATE_FILE).read_bytes()
    steps: list[None] = []

    def losses(model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        steps.append(None)
        if len(steps) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return {name: value * float("nan") for name, value in model(**batch).items()}

    with pytest.raises(UserError, match="keeps step 0"):
        run(tmp_path, config(save_every=save_every), losses=losses)
    assert (tmp_path / STATE_FILE).read_bytes() == before


def test_too_little_memory_is_reported_in_one_line(tmp_path: Path) -> None:
    def too_much(model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(
        UserError,
        match="does not fit into memory; .* keeps step 0: raise --loop.accumulate or lower --batch",
    ):
        run(tmp_path, config(), losses=too_much)


def test_a_state_is_saved_before_it_is_evaluated(tmp_path: Path) -> None:
    def failing(model: nn.Module, step: int) -> dict[str, float]:
        raise UserError("no such world")

    with pytest.raises(UserError, match="no such world"):
        run(tmp_path, config(save_every=4, eval_every=4), evaluate=failing)
    assert (tmp_path / STATE_FILE).is_file()
    assert run(tmp_path, config(save_every=4, eval_every=4)).step == 12


def test_two_trainings_do_not_share_a_run_folder(tmp_path: Path) -> None:
    def second(model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        before = sorted(tmp_path.iterdir())
        with pytest.raises(UserError, match=f"another process is training in '{tmp_path}'"):
            run(tmp_path, config())
        assert sorted(tmp_path.iterdir()) == before
        return model(**batch)

    assert run(tmp_path, config(steps=1), losses=second).step == 1
    assert run(tmp_path, config(steps=1)).step == 1  # free again
