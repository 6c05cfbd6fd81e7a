"""The policy benchmark: the floor counts what a call uses, and the whole measurement runs at
toy size.
"""

import json
from pathlib import Path

import pi0_fixtures as published
import pytest
import torch

from alam_core.config import parse_args
from alam_core.errors import UserError
from alam_core.policy.config import ModelConfig
from alam_core.policy.pi0.config import Pi0Config
from alam_core.policy.small.config import SmallConfig
from alam_core.types import VIEWS
from alam_training.benchmarks import pi0, policy
from alam_training.benchmarks.policy import PolicyBenchmarkConfig, pi0_gpu, random_policy

SIZE = {**published.SIZE, "max_words": pi0.WORDS}
PI0 = ModelConfig(
    backbone="pi0", horizon=4, image_size=published.IMAGE, denoising_steps=2, pi0=Pi0Config(**SIZE)
)
SMALL = ModelConfig(
    horizon=4,
    image_size=32,
    small=SmallConfig(width=32, layers=2, heads=2, mlp_width=32, channels=[8] * 4),
)


@pytest.fixture
def at_toy_size(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, size in (("bytes_per_second", 1000), ("operations_per_second", 32)):
        whole = getattr(pi0, name)
        monkeypatch.setattr(pi0, name, lambda device, whole=whole, size=size: whole(device, size))


def make(views: tuple[str, ...] = VIEWS, **kwargs: torch.dtype):
    return random_policy(PI0, views, pi0.NoWords(), **kwargs)


def test_naive_generation_computes_what_the_policy_does(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make().eval()
    torch.manual_seed(0)
    for parameter in model.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    seen = pi0.observation(model, "cpu")
    noise = pi0.sample_noise(pi0.streams(model, "cpu"))
    monkeypatch.setattr(pi0, "observation", lambda *_: seen)
    monkeypatch.setattr(pi0, "sample_noise", lambda _: dict(noise))
    with torch.inference_mode():
        torch.testing.assert_close(
            model.denormalise(pi0.naive(model, "cpu"), seen[1]), model.generate(*seen, noise)[0]
        )


def test_the_floor_counts_the_weights_and_operations_of_each_phase() -> None:
    model = make().eval()
    seen = pi0.observation(model, "cpu")
    with torch.inference_mode():
        context = model.encode(*seen)
        x = pi0.streams(model, "cpu")
        tau = dict.fromkeys(x, torch.ones(1, 1, 1))
        used = pi0._used(model, lambda: model.predict(x, tau, context))
    parts = (model.backbone.expert, model.backbone.norm, model.inputs, model.outputs)
    assert used["bytes"] == sum(
        parameter.nbytes for part in parts for parameter in part.parameters()
    )
    tokens, seen_by_each = (
        3 * PI0.horizon,
        2 * (published.IMAGE // published.PATCH) ** 2 + pi0.WORDS + 1 + 3 * PI0.horizon,
    )
    expert, heads = (
        sum(
            parameter.numel()
            for part in some
            for parameter in part.parameters()
            if parameter.ndim == 2
        )
        for some in (parts[:1], parts[2:])
    )
    attention = published.LAYERS * 2 * published.HEADS * seen_by_each * published.HEAD_DIM
    assert used["operations"] == 2 * tokens * (
        expert + heads / 3 + attention
    )  # a third of the tokens enters by each head


def test_one_pass_counts_and_is_finite() -> None:
    model = make(dtype=torch.bfloat16)
    measured = pi0.one_pass(model)
    assert measured["finite"] and measured["parameters"] == sum(
        parameter.numel() for parameter in model.parameters()
    )
    assert (
        model.backbone.projector.weight.dtype == torch.bfloat16
        and torch.get_default_dtype() == torch.float32
    )


@pytest.mark.slow
def test_the_whole_measurement_of_pi0_runs(at_toy_size: None) -> None:
    values = pi0_gpu(PolicyBenchmarkConfig(chunks=2, batch=2, train_steps=1, pi0=PI0), device="cpu")
    assert {
        "joint_ms",
        "action_only_ms",
        "eager_ms",
        "naive_ms",
        "floor_ms",
        "joint_samples_s",
    } <= values.keys()
    assert values["floor_ms"] > 0 and values["joint_over_floor"] > 0


def test_parts_are_measured_as_asked_and_kept_beside_each_other(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    for parts in (["small_cpu"], ["pi0_cpu"]):
        policy.main(PolicyBenchmarkConfig(parts, 1, 2, 2, 1, SMALL, PI0, results=str(tmp_path)))
    torch.set_num_threads(threads)
    values = json.loads((tmp_path / "latency_policy.json").read_text())["values"]
    assert values["small_cpu"]["joint_ms"]["p50"] > 0 and values["pi0_cpu"]["finite"]
    if not torch.cuda.is_available():
        assert values["pi0_gpu"] is None and values["why"]
        with pytest.raises(UserError, match="leave pi0_gpu out"):
            policy.main(PolicyBenchmarkConfig(["pi0_gpu"]))
    with pytest.raises(UserError, match="small_cpu.*gpu"):
        parse_args(PolicyBenchmarkConfig, "", ["--parts", "[gpu]"])
