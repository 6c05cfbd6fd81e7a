"""The journal of an evaluation: a killed run continues, and nothing is mixed up."""

import json
from pathlib import Path
from typing import Any

import pytest
from policy_fixtures import tiny_policy
from world_fixtures import make_blobs

from alam_core.errors import UserError
from alam_training.commands.evaluate import evaluate
from alam_training.episodes.evaluation import EvaluateConfig


@pytest.fixture(scope="module")
def policy(tmp_path_factory) -> Path:
    return tiny_policy().save_pretrained(tmp_path_factory.mktemp("policy") / "policy")


def config(policy: Path, journal: Path, **changes: object) -> EvaluateConfig:
    settings: dict[str, Any] = {"episodes": 5, "first_seed": 0, "replan_every": 4, "workers": 0}
    return EvaluateConfig(str(policy), "blob", journal=str(journal), **settings | changes)


def lines(journal: Path) -> list[dict]:
    return [json.loads(line) for line in journal.read_text().splitlines()]


def test_an_evaluation_that_was_killed_continues_where_it_stopped(policy, tmp_path) -> None:
    journal = tmp_path / "deep" / "episodes.jsonl"
    whole = evaluate(config(policy, journal), make_blobs)
    full = journal.read_bytes()
    assert [line.get("seed") for line in lines(journal)] == [None, 0, 1, 2, 3, 4]
    # The process died while it wrote the fourth episode.
    cut = full.rfind(b"\n", 0, -1) - 20
    journal.write_bytes(full[:cut])
    resets: list[int] = []

    def watched(*args):
        world = make_blobs(*args)
        reset = world.reset
        world.reset = lambda seed: (resets.append(seed), reset(seed))[1]
        return world

    again = evaluate(config(policy, journal), watched)
    assert resets == [3, 4]
    for values in (again, whole):
        assert values.pop("minutes") >= 0 and values.pop("steps_per_s") > 0
    assert again == whole
    assert journal.read_bytes() == full
    evaluate(config(policy, journal, workers=2, ray="auto"), watched)  # all are there
    assert resets == [3, 4]


def test_a_batched_evaluation_plays_an_interrupted_job_again(policy, tmp_path) -> None:
    journal = tmp_path / "episodes.jsonl"
    whole = evaluate(config(policy, journal, batch=2, episodes=20), make_blobs)
    kept = [*lines(journal)[:12], *lines(journal)[15:]]  # jobs of eight episodes
    journal.write_text("".join(json.dumps(line) + "\n" for line in kept))
    again = evaluate(config(policy, journal, batch=2, episodes=20), make_blobs)
    assert sorted(line["seed"] for line in lines(journal)[1:]) == list(range(20))
    for values in (again, whole):
        values.pop("minutes"), values.pop("steps_per_s")
    assert again == whole


def test_more_episodes_and_another_training_add_to_it(policy, tmp_path) -> None:
    journal = tmp_path / "episodes.jsonl"
    evaluate(config(policy, journal, episodes=2), make_blobs)
    assert evaluate(config(policy, journal, episodes=3), make_blobs)["episodes"] == 3
    other = tiny_policy(seed=1).save_pretrained(tmp_path / "other")
    evaluate(config(other, journal, episodes=3), make_blobs)
    assert [line["seed"] for line in lines(journal)[1:]] == [0, 1, 2, 0, 1, 2]


def test_other_settings_and_other_files_are_refused(policy, tmp_path) -> None:
    journal = tmp_path / "episodes.jsonl"
    evaluate(config(policy, journal, episodes=1), make_blobs)
    with pytest.raises(UserError, match="evaluation with replan_every 4: choose another file"):
        evaluate(config(policy, journal, replan_every=2), make_blobs)
    for content in ("no JSON\n", "[]\n", '{"settings": {}}\n{"seed": 1}\n'):
        journal.write_text(content)
        with pytest.raises(UserError, match="not one of an evaluation"):
            evaluate(config(policy, journal), make_blobs)
        assert journal.read_text() == content
    with pytest.raises(UserError, match="choose another file"):
        evaluate(config(policy, tmp_path), make_blobs)
