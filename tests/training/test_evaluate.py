"""Evaluation of a policy: what is counted, written, filmed and refused."""

import dataclasses
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from policy_fixtures import tiny_policy
from world_fixtures import BlobWorld, make_blobs

from alam_core.data.video import VideoReader
from alam_core.errors import UserError
from alam_core.runtime.execution import StepExecution
from alam_core.runtime.planner import Planner
from alam_core.runtime.runner import PolicyRunner
from alam_training.commands.evaluate import evaluate, write_video
from alam_training.episodes.episode import run_episode
from alam_training.episodes.evaluation import EvaluateConfig
from alam_training.episodes.metrics import success_metrics


@pytest.fixture(scope="module")
def blob_policy(tmp_path_factory):
    return tiny_policy().save_pretrained(tmp_path_factory.mktemp("policy") / "policy")


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_counts_successes_and_writes_them(blob_policy, tmp_path, workers):
    config = EvaluateConfig(
        str(blob_policy), "blob", 5, 0, 4, workers=workers, results=str(tmp_path), result="alam"
    )
    values = evaluate(config, make_blobs)
    assert (
        values["episodes"],
        values["successes"],
        values["failed_seeds"],
        values["mean_steps"],
    ) == (5, 2, [1, 2, 4], 3.0)
    assert {task: counts["successes"] for task, counts in values["per_task"].items()} == {
        "even": 1,
        "odd": 1,
    }
    assert values["per_task"]["even"]["episodes"] == 3
    assert values["rendering"] == "fast" and "protocol" not in values
    written = json.loads((tmp_path / "blob.json").read_text())
    assert written["seeds"] == [0, 1, 2, 3, 4]
    assert written["values"]["alam"]["successes"] == 2


@pytest.mark.parametrize("workers", [0, 1])
def test_batched_episodes_are_counted_and_filmed_like_others(blob_policy, tmp_path, workers):
    config = EvaluateConfig(
        str(blob_policy), "blob", 9, 0, 4, workers=workers, batch=2, videos=1, results=str(tmp_path)
    )
    config.video_folder = str(tmp_path)
    values = evaluate(config, make_blobs)
    assert (values["episodes"], values["failed_seeds"]) == (9, [1, 2, 4, 5, 7, 8])
    assert [path.name for path in tmp_path.iterdir()] == ["even-0-success.mp4"]


class BlobWorldWithExpert(BlobWorld):
    """Its expert pushes the blob by what its seed says."""

    def expert(self, seed):
        return PushingExpert(seed)


class PushingExpert:
    def __init__(self, seed):
        self.seed = seed

    def reset(self):
        self.steps = 0

    def act(self):
        self.steps += 1
        return np.array([self.seed + self.steps, *np.zeros(6)])


def test_the_scripted_expert_is_evaluated_like_a_policy(tmp_path):
    world = BlobWorldWithExpert()
    journal = str(tmp_path / "episodes.jsonl")
    config = EvaluateConfig(
        "expert", "blob", 4, 0, workers=0, videos=1, video_folder=str(tmp_path), journal=journal
    )
    values = evaluate(config, lambda *_: world)
    assert (values["episodes"], values["failed_seeds"]) == (4, [1, 2])
    assert world.at == 3 + 3  # the seed of the last episode, which succeeded at its third step
    assert (tmp_path / "even-0-success.mp4").exists()
    assert evaluate(config, lambda *_: world)["episodes"] == 4  # from the journal


def test_a_world_without_an_expert_is_told():
    with pytest.raises(UserError, match="world 'blob' has no scripted expert"):
        evaluate(EvaluateConfig("expert", "blob", 4, 0, workers=0), make_blobs)
    with pytest.raises(UserError, match="needs --batch 1 and --via direct"):
        EvaluateConfig("expert", "blob", batch=2)


def test_evaluation_films_episodes(blob_policy, tmp_path):
    evaluate(
        EvaluateConfig(
            str(blob_policy), "blob", 3, 0, 4, workers=0, videos=2, video_folder=str(tmp_path)
        ),
        make_blobs,
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "even-0-success.mp4",
        "odd-1-failure.mp4",
    ]
    assert VideoReader(tmp_path / "odd-1-failure.mp4").fps == 10.0


def test_failures_are_played_again_and_filmed(blob_policy, tmp_path):
    config = EvaluateConfig(
        str(blob_policy), "blob", 5, 0, 4, workers=0, failure_videos=2, video_folder=str(tmp_path)
    )
    values = evaluate(config, make_blobs)
    assert values["episodes"] == 5 and values["failed_seeds"] == [1, 2, 4]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "even-2-failure.mp4",
        "odd-1-failure.mp4",
    ]


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"intervention": "freeze"}, "no intervention"), ({"horizon": 5}, "trained on 4")],
)
def test_unsupported_settings_are_reported_before_any_episode(
    blob_policy, tmp_path, changes, words
):
    without = tiny_policy(latent_views=[]).save_pretrained(tmp_path / "without")
    played = []
    config = EvaluateConfig(f"{blob_policy},{without}", "blob", 2, 0, 4, workers=0, **changes)
    with pytest.raises(UserError, match=words):
        evaluate(config, lambda *args: played.append(1) or make_blobs(*args))
    assert len(played) <= 1  # to see whether the first fits


def test_images_are_rendered_only_where_a_plan_or_a_film_needs_them():
    agent = StepExecution(Planner(PolicyRunner(tiny_policy()), 4))
    for filmed, expected in (
        (False, [True, False, False, False, True, False, False]),
        (True, [True] * 7),
    ):
        world = BlobWorld()
        run_episode(world, agent, seed=1, film=filmed)
        assert world.renders == expected


def test_states_outside_the_range_of_training_are_counted():
    policy = tiny_policy()
    agent = StepExecution(Planner(PolicyRunner(policy), 4))
    assert "unusual_states" not in success_metrics([run_episode(BlobWorld(), agent, seed=1)])
    policy.stats.state_range = np.full((2, 7), 50.0, np.float32)
    counted = success_metrics([run_episode(BlobWorld(), agent, seed) for seed in (1, 2)])[
        "unusual_states"
    ]
    assert (
        counted["episodes"] == 2 and "outside 50 to 50 (clipped); joint2 is" in counted["example"]
    )


class Still:
    """An agent that keeps the blob where it is."""

    def reset(self, seed):
        pass

    def act(self, observation):
        return np.zeros(7)

    def apply(self, world, action, render):
        return world.step(action, render=render)

    def needs_images(self, stamp):
        return False


def test_videos_play_at_the_worlds_own_speed(tmp_path):
    world = BlobWorld()
    world.dt = 1 / 40
    write_video(
        EvaluateConfig(world="blob", video_folder=str(tmp_path)),
        run_episode(world, Still(), 3, film=True),
    )
    (path,) = tmp_path.iterdir()
    assert VideoReader(path).fps == 40.0


def test_a_full_disk_costs_the_videos_not_the_measurement(
    blob_policy, tmp_path, monkeypatch, capsys
):
    def full(self, images):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("alam_core.data.video.VideoWriter.add", full)
    config = EvaluateConfig(
        str(blob_policy), "blob", 3, 0, 4, workers=0, videos=1, video_folder=str(tmp_path)
    )
    assert evaluate(config, make_blobs)["episodes"] == 3
    assert "no video of seed 0: cannot read or write" in " ".join(capsys.readouterr().out.split())
    assert not list(tmp_path.iterdir())


def test_a_world_of_several_tasks_names_one_file(blob_policy, tmp_path):
    folder = str(tmp_path)
    config = EvaluateConfig(
        str(blob_policy),
        "blob/a,b",
        1,
        0,
        4,
        workers=0,
        videos=1,
        video_folder=folder,
        result="alam",
        results=folder,
    )
    evaluate(config, make_blobs)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "blob_a,b.json",
        "even-0-success.mp4",
    ]
    evaluate(dataclasses.replace(config, videos=0, result="choices/first", horizon=4), make_blobs)
    assert json.loads((tmp_path / "choices.json").read_text())["values"]["first"]["successes"] == 1


def test_trainings_of_one_method_are_counted_together_and_in_groups(blob_policy, tmp_path):
    other = shutil.copytree(blob_policy, tmp_path / "other")
    config = EvaluateConfig(
        f"{blob_policy},{other}",
        "blob",
        5,
        0,
        4,
        workers=0,
        results=str(tmp_path),
        result="study/changes/none",
    )
    values = evaluate(config, make_blobs)
    assert (values["episodes"], values["successes"], values["per_policy"]) == (
        10,
        4,
        {str(blob_policy): 2, str(other): 2},
    )
    assert values["per_task"]["even"]["episodes"] == 6
    assert values["per_task"]["even"]["successes"] == 2
    evaluate(
        dataclasses.replace(config, policy=str(blob_policy), result="study/changes/other"),
        make_blobs,
    )
    written = json.loads((tmp_path / "study.json").read_text())
    assert {key: entry["episodes"] for key, entry in written["values"]["changes"].items()} == {
        "none": 10,
        "other": 5,
    }
    with pytest.raises(UserError, match="named twice"):
        dataclasses.replace(config, policy=f"{other}, {other},")
    with pytest.raises(UserError, match="give <key>"):
        dataclasses.replace(config, result="a/b/c/d")


def test_a_second_policy_that_does_not_fit_is_refused_before_any_episode(blob_policy, tmp_path):
    short = tiny_policy(horizon=2).save_pretrained(tmp_path / "short")

    def never(name, size):
        world = BlobWorld(name, size)
        world.reset = None
        return world

    with pytest.raises(UserError, match="replanning every 4 steps"):
        evaluate(EvaluateConfig(f"{blob_policy},{short}", "blob", 5, 0, 4, workers=0), never)


def test_an_error_in_a_worker_is_reported_in_one_line(blob_policy):
    command = [
        sys.executable,
        "training/evaluate.py",
        "--policy",
        str(blob_policy),
        "--workers",
        "1",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.startswith("error: replanning every 8 steps")


@pytest.mark.parametrize("flags", [["--execution", "rows"], ["--intervention", "none"]])
def test_a_choice_that_does_not_exist_is_refused(flags):
    command = [sys.executable, "training/evaluate.py", "--policy", "nowhere", *flags]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert flags[0].strip("-") in done.stderr
