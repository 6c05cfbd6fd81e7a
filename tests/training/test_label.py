"""Video labelled by an inverse dynamics model: what it learns, what it reads, what is written."""

import re
from pathlib import Path

import numpy as np
import pytest

from alam_core.data.lerobot import LeRobotDataset, LeRobotWriter
from alam_core.errors import UserError
from alam_core.policy.inverse_dynamics import InverseDynamics, InverseDynamicsConfig
from alam_training.commands.label import label
from alam_training.loop.config import LoopConfig, OptimConfig
from alam_training.stage2.labelling import LabelConfig, infer

EPISODES, LENGTH, SIZE = 12, 14, 32


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bright square that moves as the action says; the state is its place."""
    root = tmp_path_factory.mktemp("data") / "square"
    rng = np.random.default_rng(0)
    with LeRobotWriter(root, 10.0, {"top": (SIZE, SIZE)}, ["x"], ["dx"], "toy") as writer:
        for _ in range(EPISODES):
            action = np.repeat(rng.uniform(-2, 2, LENGTH // 2), 2)
            place = np.clip(8 + np.cumsum(action) - action, 0, SIZE - 8)
            images = np.full((LENGTH, SIZE, SIZE, 3), 20, np.uint8)
            for t, x in enumerate(place.round().astype(int)):
                images[t, 12:20, x : x + 8] = 230
            writer.add_episode({"top": images}, place[:, None], action[:, None], "follow")
    return root


def settings(root: Path, tmp_path: Path, **changes: object) -> LabelConfig:
    values = {
        "data": str(root),
        "labelled": 4,
        "video": str(root),
        "output": str(tmp_path / "labelled"),
        "run": str(tmp_path / "run"),
        "batch": 16,
        "model": InverseDynamicsConfig(SIZE, 2, 32, 4),
        "loop": LoopConfig(steps=2, cpu=True, optim=OptimConfig(warmup_steps=1)),
    }
    return LabelConfig(**(values | changes))


def test_a_data_set_of_given_and_inferred_labels(root, tmp_path, capsys):
    assert label(settings(root, tmp_path))
    made, given = LeRobotDataset(tmp_path / "labelled"), LeRobotDataset(root)
    assert made.extras["inferred"] == [False] * 4 + [True] * 7  # one episode is held out
    assert made.state_names == given.state_names and made.fps == given.fps
    for e in range(4):
        np.testing.assert_array_equal(made.episode(e).action, given.episode(e).action)
    assert made.episode(5).task == "follow" and np.isfinite(made.episode(5).action).all()
    assert "4 labelled episodes and 7 with inferred labels" in capsys.readouterr().out
    with pytest.raises(UserError, match="exists already"):
        label(settings(root, tmp_path))


@pytest.mark.slow
def test_the_model_learns_to_infer_actions(root, tmp_path, capsys):
    loop = LoopConfig(steps=250, cpu=True, optim=OptimConfig(lr=2e-3, warmup_steps=10))
    assert label(settings(root, tmp_path, labelled=8, loop=loop))
    told = re.findall(r"held-out episodes, (\w+): (\S+)", capsys.readouterr().out)
    assert {name: float(value) > 0.5 for name, value in told} == {
        "actions_r2": True,
        "state_r2": True,
    }


def test_an_action_is_the_mean_of_all_predictions_that_span_it():
    class Counting(InverseDynamics):
        """Predicts the brightness of the start for all actions."""

        def forward(self, start, end):
            value = start["top"].float().mean((1, 2, 3))
            return value.view(-1, 1, 1).expand(-1, *self.shape), value.view(-1, 1)

    model = Counting(InverseDynamicsConfig(SIZE, 3, 32, 4), ["top"], 1, 1)

    class Stats:
        state_mean, state_std = np.zeros(1), np.ones(1)
        action_mean, action_std = np.zeros((3, 1)), np.ones((3, 1))

    frames = np.arange(6, dtype=np.uint8)[:, None, None, None] * np.ones(
        (1, SIZE, SIZE, 3), np.uint8
    )
    states, actions = infer(model, {"top": frames}, Stats())
    np.testing.assert_allclose(states[:, 0], np.arange(6))
    np.testing.assert_allclose(actions[:5, 0], [0, 0.5, 1, 2, 3])
    # The last one is spanned three times by the last pair and by two earlier ones.
    np.testing.assert_allclose(actions[5, 0], (3 + 4 * 2 + 5 * 3) / 6)


def test_mistakes_are_named(root, tmp_path):
    with LeRobotWriter(tmp_path / "side", 10.0, {"side": (SIZE, SIZE)}, [], [], "") as writer:
        images = {"side": np.zeros((3, SIZE, SIZE, 3), np.uint8)}
        writer.add_episode(images, np.zeros((3, 0)), np.zeros((3, 0)), "look")
    with pytest.raises(UserError, match="the policy sees top"):
        label(settings(root, tmp_path, video=str(tmp_path / "side")))
    with pytest.raises(UserError, match="multiple of 16"):
        InverseDynamicsConfig(40)
