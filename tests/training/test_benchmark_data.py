"""The reading benchmark: its result file, its comparison with LeRobot, and its error messages."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alam_core.data.lerobot import LeRobotDataset, LeRobotWriter
from alam_core.errors import UserError
from alam_training.benchmarks import data as benchmark
from alam_training.benchmarks.data import DataConfig, encode_again, main, summarise


@pytest.fixture
def root(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    with LeRobotWriter(tmp_path / "set", 10, {"top": (24, 24)}, ["x"], ["u"], "toy") as writer:
        for _ in range(3):
            writer.add_episode(
                {"top": rng.integers(0, 256, (20, 24, 24, 3), np.uint8)},
                np.zeros((20, 1)),
                np.zeros((20, 1)),
                "go",
            )
    return tmp_path / "set"


def config(root: Path, **fields: Any) -> DataConfig:
    return DataConfig(
        **{
            "data": str(root),
            "cores": 1,
            "image_size": 8,
            "batch": 4,
            "items": 8,
            "workers": [0],
            "repetitions": 2,
            "reencode": 2,
            **fields,
        }
    )


def test_without_lerobot_our_rates_are_measured_and_the_ratio_is_null(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: dict[str, Any] = {}
    monkeypatch.setattr(
        benchmark, "write_result", lambda name, values, *_, **__: written.update({name: values})
    )
    assert main(config(root)) == 0
    values = written["data_throughput"]
    assert (
        values["ours_items_s"] > 0
        and values["lerobot_items_s"] is None
        and values["ratio"] is None
        and "lerobot_python" in values["why"]
    )
    assert all(rate > 0 for rate in values["triplets_s"].values())
    assert values["frames_s"].keys() == values["triplets_s"].keys()
    assert (
        values["original"]["ours_items_s"] > 0 and "first 2 episodes written anew" in values["data"]
    )


def test_the_ratio_is_that_of_the_medians_with_the_range_of_the_pairs() -> None:
    rates = {
        "ours items": [(300.0, 310.0), (330.0, 320.0), (90.0, 330.0)],
        "ours items, decoded once": [(5000.0, 5000.0)] * 3,
        "lerobot items": [(100.0, 110.0), (110.0, 100.0), (90.0, 105.0)],
        "ours items, as it lies": [(200.0, 200.0)] * 3,
        "lerobot items, as it lies": [(100.0, 100.0)] * 3,
        "ours triplets, decoded once": [(7.0, None)] * 3,
    }
    values = summarise(DataConfig(), rates, {"lerobot": "0"})  # type: ignore[arg-type]
    assert (values["ours_items_s"], values["lerobot_items_s"], values["ratio"]) == (
        300.0,
        100.0,
        3.0,
    )
    assert values["ratio_range"] == [1.0, 3.0] and values["ratio_decoded_once"] == 50.0
    assert values["original"]["ratio"] == 2.0
    assert values["ratio_of_cpu_time"] == pytest.approx(320 / 105) and values["frames_s"] == {
        "ours triplets, decoded once": 21.0
    }


def test_a_set_that_is_encoded_again_has_the_same_episodes(root: Path, tmp_path: Path) -> None:
    original = LeRobotDataset(root)
    again = encode_again(original, 2, tmp_path / "again")
    assert (
        again.num_episodes == 2 and again.views == original.views and again.episode(1).task == "go"
    )
    for number in (0, 13):
        difference = again.frames(1, "top", [number]).astype(int) - original.frames(
            1, "top", [number]
        )
        # Noise is hard to encode; another frame would differ by 80.
        assert abs(difference).mean() < 12


@pytest.mark.parametrize(
    ("python", "words"),
    [("nowhere/python", "cannot be started"), (sys.executable, "is LeRobot installed")],
)
def test_a_python_without_lerobot_is_named(root: Path, python: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        main(config(root, lerobot_python=python, save=False))
