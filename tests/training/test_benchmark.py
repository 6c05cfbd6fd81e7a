"""The benchmark command lists its benchmarks; that of stage 1 counts parameters and times steps."""

import json
import sys
from pathlib import Path

import pytest
import torch
import yaml

from alam_core.config import to_dict
from alam_core.errors import UserError
from alam_core.latent_action import TransitionConfig, TransitionModel
from alam_training.benchmarks import pretraining
from alam_training.benchmarks.pretraining import (
    PretrainingConfig,
    Steps,
    on_cpu,
    on_gpu,
    read_model,
)
from alam_training.commands import benchmark

TINY = TransitionConfig(
    image_size=16,
    patch_size=4,
    width=32,
    heads=2,
    encoder_layers=1,
    decoder_layers=1,
    latent_tokens=3,
    latent_dim=8,
)


def test_without_a_name_all_benchmarks_are_listed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["training/benchmark.py"])
    assert benchmark.main() == 0
    shown = capsys.readouterr().out
    assert all(f"benchmark.py {name}" in shown for name in benchmark.MEASUREMENTS)


@pytest.mark.parametrize("name", list(benchmark.MEASUREMENTS))
def test_each_benchmark_has_its_own_options(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if benchmark.MEASUREMENTS[name][0].startswith("alam_demo."):
        pytest.importorskip("alam_msgs.msg", reason="needs the built workspace")
    monkeypatch.setattr("sys.argv", ["training/benchmark.py", name, "--help"])
    with pytest.raises(SystemExit) as end:
        benchmark.main()
    assert end.value.code == 0
    assert "--save" in capsys.readouterr().out


def test_an_unknown_benchmark_is_refused_with_a_list_of_the_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.argv", ["training/benchmark.py", "speed"])
    with pytest.raises(
        UserError, match="no benchmark 'speed': choose one of data, policy, pretraining"
    ):
        benchmark.main()


def test_a_benchmark_of_nodes_needs_the_built_workspace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "alam_demo", None)
    monkeypatch.delitem(sys.modules, "alam_demo.controller_loop", raising=False)
    monkeypatch.setattr("sys.argv", ["training/benchmark.py", "controller_loop"])
    with pytest.raises(UserError, match="needs the built workspace .*make setup && source setup"):
        benchmark.main()


def test_timed_steps_train_the_model() -> None:
    step = Steps(TINY, 2, "cpu", bf16=False)
    before = [parameter.clone() for parameter in step.model.parameters()]
    step()
    step()
    assert int(step.model.steps) == 2
    moved = [not torch.equal(a, b) for a, b in zip(before, step.model.parameters(), strict=True)]
    assert sum(moved) > len(moved) / 2
    assert step.average.count == 2


def test_parameters_memory_and_time_are_measured() -> None:
    threads = torch.get_num_threads()
    measured = on_cpu(TINY, 1, 2, "bf16")
    torch.set_num_threads(threads)
    assert measured["parameters"] == sum(
        parameter.numel() for parameter in TransitionModel(TINY).parameters()
    )
    assert 0.1 < measured["peak_gib"] < 100 and measured["step_s"] >= 0


def test_the_papers_size_is_measured_by_default() -> None:
    model = read_model(PretrainingConfig().model)
    assert (
        model.image_size,
        model.patch_size,
        model.width,
        model.encoder_layers,
        model.decoder_layers,
    ) == (224, 14, 768, 12, 12)
    assert (model.latent_tokens, model.latent_dim, model.codebook_size) == (7, 128, 256)


def test_a_missing_model_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot read the model .*nothing.yaml"):
        read_model(str(tmp_path / "nothing.yaml"))


@pytest.mark.slow
def test_the_result_has_the_agreed_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(to_dict(TINY)))
    written: dict[str, dict] = {}
    monkeypatch.setattr(
        pretraining, "write_result", lambda name, values, seeds: written.update({name: values})
    )
    assert pretraining.main(PretrainingConfig(model=str(tmp_path / "tiny.yaml"), steps=1)) == 0
    values = written["pretraining_paper_size"]
    assert {"parameters", "peak_gib", "cpu_step_s", "gpu"} <= values.keys()
    assert (values["gpu"] is None) == ("why" in values)
    json.dumps(values)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_the_fraction_of_the_gpus_peak_is_at_most_one() -> None:
    measured = on_gpu(TINY, 4, 3)
    assert measured["triplets_s"] > 0 and 0 < measured["bf16_share"] < 1
