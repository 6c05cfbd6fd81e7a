"""Collecting in a world that is small enough to know the exact result."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from collect_fixtures import Line, Walker, collect_line, content, make_line

from alam_core.data.lerobot import LeRobotDataset, LeRobotWriter
from alam_core.data.video import VideoWriter
from alam_core.errors import UserError
from alam_core.types import Observation
from alam_training.commands.collect import (
    SETTINGS,
    CollectConfig,
    burst_noise,
    collect,
    run_episode,
)


def test_only_successes_are_kept_in_order_of_their_seeds(tmp_path: Path) -> None:
    dataset = collect_line(tmp_path / "set")
    assert dataset.extras["seed"] == [1, 2, 3, 4, 6, 7]
    assert dataset.fps == 10 and dataset.views == ("third_person", "wrist")


def test_the_summary_counts_failures(tmp_path: Path) -> None:
    config = CollectConfig(
        world="line",
        output=str(tmp_path / "set"),
        episodes=6,
        first_seed=1,
        image_size=8,
        workers=0,
    )
    summary = collect(config, make_line, Walker)
    assert (summary.episodes, summary.tried) == (6, 7) and summary.expert_success == pytest.approx(
        6 / 7
    )
    assert summary.frames == LeRobotDataset(tmp_path / "set").num_frames


def test_a_row_pairs_an_observation_with_the_action_taken_there(tmp_path: Path) -> None:
    dataset = collect_line(tmp_path / "set", noisy_fraction=0.5, noise_std=0.2, noise_rate=3.0)
    for e in range(dataset.num_episodes):
        arrays = dataset.episode(e)
        assert np.array_equal(
            arrays.action[:, 0], np.ones(len(arrays.action))
        )  # the expert's label, never the noisy one
        assert np.array_equal(
            arrays.action[:, 1], arrays.state[:, 0]
        )  # the expert saw the state of the same row
        shown = dataset.frames(e, "third_person", range(len(arrays.state)))[:, 0, 0, 0]
        assert np.abs(shown - (100 + 50 * arrays.state[:, 0])).max() <= 3
        assert arrays.task == f"go {dataset.extras['seed'][e] % 2}"


def test_an_episode_ends_when_success_has_lasted() -> None:
    config = CollectConfig(noisy_fraction=0.0, hold_steps=4)
    world = Line(8)
    episode = run_episode(world, Walker, config, 1)
    start = float(np.random.default_rng(1).uniform(-1, 0))
    steps_to_goal = int(np.ceil((0.95 - start) / 0.1))
    assert episode.success and len(episode.state) == steps_to_goal + 4 - 1


def test_an_interrupted_success_is_counted_from_the_start() -> None:
    class Flickering(Line):
        """Succeeds at steps 1, 2, 4 and from step 6 on."""

        def success(self) -> bool:
            return len(self.seen_actions) in (1, 2, 4) or len(self.seen_actions) >= 6

    episode = run_episode(Flickering(8), Walker, CollectConfig(noisy_fraction=0.0, hold_steps=3), 1)
    assert episode.success and len(episode.state) == 8


def test_noise_changes_the_executed_action_except_the_gripper() -> None:
    world = Line(8)
    noisy = run_episode(
        world, Walker, CollectConfig(noisy_fraction=1.0, noise_std=0.3, noise_rate=5.0), 1
    )
    executed = np.array(world.seen_actions)
    assert (
        noisy.noisy and np.abs(executed[: len(noisy.action), 0] - noisy.action[:, 0]).max() > 0.01
    )
    np.testing.assert_allclose(executed[: len(noisy.action), 1], noisy.action[:, 1], atol=1e-6)
    run_episode(world, Walker, CollectConfig(noisy_fraction=0.0), 1)
    assert (np.array(world.seen_actions)[:, 0] == 1).all()


def test_noise_comes_in_pushes_with_pauses() -> None:
    noise = burst_noise(20_000, 3, 0.05, 0.6, 0.1, np.random.default_rng(0))
    still = np.abs(noise).max(axis=1) < 1e-3
    assert 0.2 < still.mean() < 0.8
    assert np.abs(noise.mean(axis=0)).max() < 0.003
    assert (
        np.abs(np.diff(noise, axis=0)).max() <= 0.5 * 2 * 6 * 0.05
    )  # never jumps to a push at once
    assert (burst_noise(50, 3, 0.05, 0.0, 0.1, np.random.default_rng(0)) == 0).all()


def test_the_number_of_workers_does_not_change_the_data(tmp_path: Path) -> None:
    for workers in (0, 2):
        collect_line(tmp_path / str(workers), workers=workers)
    assert content(tmp_path / "0") == content(tmp_path / "2")


def test_resuming_gives_the_episodes_of_one_run(tmp_path: Path) -> None:
    whole = collect_line(tmp_path / "whole")
    collect_line(tmp_path / "parts", episodes=3)
    parts = collect_line(tmp_path / "parts", episodes=6, resume=True)
    assert parts.extras == whole.extras
    for e in range(6):
        assert np.array_equal(parts.episode(e).action, whole.episode(e).action)
        assert np.array_equal(parts.frames(e, "wrist", [0, 5]), whole.frames(e, "wrist", [0, 5]))
    again = content(tmp_path / "parts")
    collect_line(tmp_path / "parts", episodes=6, resume=True)
    assert content(tmp_path / "parts") == again


def test_an_interrupt_keeps_the_collected_episodes(tmp_path: Path) -> None:
    class Interrupted(Line):
        def reset(self, seed: int) -> Observation:
            if seed == 4:
                raise KeyboardInterrupt
            return super().reset(seed)

    config = CollectConfig(
        world="line",
        output=str(tmp_path / "set"),
        episodes=6,
        first_seed=1,
        image_size=8,
        workers=0,
        hold_steps=3,
    )
    collect(config, lambda name, size: Interrupted(size), Walker)
    assert LeRobotDataset(tmp_path / "set").extras["seed"] == [1, 2, 3]
    assert collect_line(tmp_path / "set", resume=True).extras["seed"] == [1, 2, 3, 4, 6, 7]


def test_an_interrupt_while_the_data_set_is_closed_leaves_it_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    close = LeRobotWriter.close

    def interrupted(self: LeRobotWriter) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        close(self)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(LeRobotWriter, "close", interrupted)
        collect_line(tmp_path / "set", episodes=3)
    assert collect_line(tmp_path / "set", episodes=5, resume=True).num_episodes == 5


def test_a_resume_with_other_settings_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "set"
    collect_line(root)
    with pytest.raises(UserError, match="exists already"):
        collect_line(root)
    with pytest.raises(UserError, match="noise_std = 0.05, not 0.1"):
        collect_line(root, noise_std=0.1, episodes=7, resume=True)
    (root / SETTINGS).write_text(json.dumps({}))
    with pytest.raises(UserError, match="no setting world"):
        collect_line(root, episodes=7, resume=True)
    (root / SETTINGS).unlink()
    with pytest.raises(UserError, match="can be resumed"):
        collect_line(root, episodes=7, resume=True)


def test_a_hopeless_expert_ends_the_run_and_leaves_nothing(tmp_path: Path) -> None:
    class Never(Line):
        def success(self) -> bool:
            return False

    config = CollectConfig(world="line", output=str(tmp_path / "set"), episodes=2, workers=0)
    with pytest.raises(UserError, match="is the world broken"):
        collect(config, lambda name, size: Never(size), Walker)
    assert list(tmp_path.iterdir()) == []


def test_a_worker_that_cannot_start_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a worker died"):
        collect(
            CollectConfig(world="line", output=str(tmp_path / "set"), workers=1),
            make_broken,
            Walker,
        )
    assert list(tmp_path.iterdir()) == []


def make_broken(name: str, size: int) -> Line:
    raise OSError("no GL")


@pytest.mark.parametrize(
    "flags",
    [
        ["--noisy_fraction", "2"],
        ["--episodes", "0"],
        ["--world", "nowhere", "--workers", "0"],
        ["--world", "nowhere"],
    ],
)
def test_bad_values_give_one_line_and_exit_code_2(tmp_path: Path, flags: list[str]) -> None:
    script = Path(__file__).parents[2] / "training/collect.py"
    command = [sys.executable, str(script), "--output", str(tmp_path / "set"), *flags]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=script.parents[1]
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("error:")


def test_an_interrupt_while_an_episode_is_written_keeps_whole_episodes_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add, calls = VideoWriter.add, []

    def interrupted(self: VideoWriter, images: np.ndarray) -> None:
        calls.append(None)
        if len(calls) == 5:  # the first view of the third episode
            os.kill(os.getpid(), signal.SIGINT)
        add(self, images)

    monkeypatch.setattr(VideoWriter, "add", interrupted)
    config = CollectConfig(
        world="line",
        output=str(tmp_path / "set"),
        episodes=6,
        first_seed=1,
        image_size=8,
        workers=0,
        hold_steps=3,
    )
    summary = collect(config, make_line, Walker)
    dataset = LeRobotDataset(tmp_path / "set")
    rows = sum(
        pq.read_metadata(path).num_rows for path in (tmp_path / "set" / "data").rglob("*.parquet")
    )
    assert rows == dataset.num_frames == summary.frames
    assert dataset.num_episodes == summary.episodes == 3
