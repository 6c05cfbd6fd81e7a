"""The benchmark of evaluations: what it compares and writes, and its Ray cluster of two nodes."""

import json
import os
from pathlib import Path

import pytest
from worker_fixtures import add, make_number

from alam_core.errors import UserError
from alam_training.benchmarks import evaluation
from alam_training.benchmarks.evaluation import EvaluationConfig
from alam_training.episodes.workers import workers

SPEEDS = {(0, 1): 10.0, (0, 8): 15.0, (2, 1): 18.0, (2, 8): 30.0}  # by workers and batch


def test_the_fastest_way_is_compared_with_serial_play(tmp_path: Path, monkeypatch) -> None:
    played = []

    def play(config):
        key = (config.workers, config.batch)
        played.append(key)
        late = 0.5 * played.count(key)  # another time each time
        successes = {seed: seed % 2 == 0 or key == (2, 8) for seed in config.seeds}
        return SPEEDS[key] - late, successes

    monkeypatch.setattr(evaluation, "play", play)
    config = EvaluationConfig(episodes=6, ray=False, results=str(tmp_path))
    assert evaluation.main(config) == 0
    assert played == [*SPEEDS] * 3  # in turns
    values = json.loads((tmp_path / "evaluation_speed.json").read_text())["values"]
    assert (values["episodes_min"], values["serial_episodes_min"]) == (29.0, 9.0)
    assert values["ratio"] == pytest.approx(29 / 9, abs=1e-3)
    assert values["ray_two_nodes_episodes_min"] is None
    assert values["ways"]["workers, batched"]["equal_successes"] == 3
    assert (values["ways"]["serial"]["min"], values["ways"]["serial"]["max"]) == (8.5, 9.5)


def test_settings_that_cannot_be_measured_are_refused() -> None:
    with pytest.raises(UserError, match="repetitions must be at least 1"):
        EvaluationConfig(repetitions=0)
    with pytest.raises(UserError, match="--ray false"), evaluation.two_nodes(1):
        pass


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
def test_two_nodes_divide_the_work() -> None:
    pytest.importorskip("ray")
    before = dict(os.environ)
    with evaluation.two_nodes(2) as address:
        with workers(2, make_number, 1, ray=address) as submit:
            assert [submit(add, value).result() for value in range(4)] == [1, 2, 3, 4]
        with pytest.raises(UserError, match="has 2 CPUs"), workers(3, make_number, ray=address):
            pass
    assert dict(os.environ) == before
