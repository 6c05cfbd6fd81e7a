"""Stage 1 with a few action labels: which are used, and that only the encoder is kept."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_label import EPISODES, LENGTH, SIZE, root

from alam_core.data.mixture import SourceConfig, open_sources
from alam_core.errors import UserError
from alam_core.latent_action import TransitionConfig, TransitionModel
from alam_core.latent_action.grounding import GroundingConfig
from alam_core.latent_action.triplets import GapConfig
from alam_training.commands.pretrain import pretrain
from alam_training.loop.config import LoopConfig, OptimConfig
from alam_training.stage1.actions import ActionProbeConfig
from alam_training.stage1.config import PretrainConfig
from alam_training.stage1.grounding import LabelledPairs

__all__ = ["root"]  # a fixture
GAPS = GapConfig("fixed", 2)


def settings(root: Path, run: Path, weight: float = 1.0, steps: int = 4) -> PretrainConfig:
    return PretrainConfig(
        data=str(root),
        run=str(run),
        held_out=0.2,
        batch=8,
        gaps=GAPS,
        probe_gap=2,
        probe_triplets=8,
        actions=ActionProbeConfig([3], span=2, width=4, most=100),
        grounding=GroundingConfig(weight, 4, hidden=8),
        model=TransitionConfig(
            image_size=SIZE,
            encoder="keypoints",
            decoder="convolutional",
            latent_tokens=1,
            latent_dim=24,
            keypoints=4,
            codebook_size=0,
        ),
        loop=LoopConfig(steps=steps, cpu=True, save_every=2, optim=OptimConfig(warmup_steps=1)),
    )


def pairs(root: Path, labelled: int = 3) -> LabelledPairs:
    config = [SourceConfig(str(root))]
    episodes = [np.arange(EPISODES)]
    grounding = GroundingConfig(1.0, labelled, pairs=1.0)
    return LabelledPairs(config, open_sources(config, SIZE, True), episodes, grounding, GAPS, 64, 0)


def test_a_grounded_run_keeps_the_transition_model_alone(root, tmp_path, capsys):
    config = settings(root, tmp_path / "run")
    trained, metrics, finished = pretrain(config, open_sources(config.sources, SIZE, True))
    assert finished and isinstance(trained, TransitionModel)
    assert np.isfinite(metrics["action_r2"]) and metrics["add_rel"] < 1e-5
    again = TransitionModel.from_pretrained(tmp_path / "run/model")
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in trained.state_dict().items())
    # One of the four is held out.
    assert "the labels of 3 episodes also train the encoder" in capsys.readouterr().out
    plain = settings(root, tmp_path / "plain", weight=0.0)
    other, _, _ = pretrain(plain, open_sources(plain.sources, SIZE, True))
    assert other.state_dict().keys() == trained.state_dict().keys()


def test_a_grounded_run_resumes_exactly(root, tmp_path):
    config = settings(root, tmp_path / "whole")
    sources = open_sources(config.sources, SIZE, True)
    whole, _, _ = pretrain(config, sources)
    parts = settings(root, tmp_path / "parts")
    pretrain(replace(parts, loop=replace(parts.loop, max_minutes=1e-9)), sources)
    resumed, _, finished = pretrain(parts, sources)
    assert finished
    assert all(torch.equal(v, resumed.state_dict()[k]) for k, v in whole.state_dict().items())


def test_pairs_are_of_labelled_episodes_and_shared_by_ranks(root):
    source = pairs(root)
    assert source.episodes == 3 and source.cameras == 1 and source.width == 1
    whole = source(5, 0, 1)
    for name, values in whole.items():
        together = torch.stack([source(5, rank, 2)[name] for rank in range(2)], 1).flatten(0, 1)
        assert torch.equal(values, together), name
    seen = np.unique(whole["first"].reshape(64, -1).numpy(), axis=0)
    frames = open_sources([SourceConfig(str(root))], SIZE, True)[0].frames[0]
    allowed = frames.array[: 3 * LENGTH].reshape(3 * LENGTH, -1)
    assert all((allowed == row).all(1).any() for row in seen)


def test_an_action_is_the_mean_over_the_pair(root):
    source = pairs(root, labelled=EPISODES)
    (own,) = source._sources
    data = own.labels.demonstrations
    expected = (data.actions[3:5].mean(0) - own.centre) / own.scale
    np.testing.assert_allclose(own.actions(np.array([3]), np.array([5]))[0], expected, atol=1e-5)


def test_no_labels_are_an_error(root, tmp_path):
    (tmp_path / "films").mkdir()
    config = [SourceConfig(str(root), images={"top": "observation.images.top"})]
    sources = open_sources(config, SIZE, True)
    config[0].path = str(tmp_path / "films")
    with pytest.raises(UserError, match="no source has any"):
        LabelledPairs(config, sources, [np.arange(4)], GroundingConfig(1.0), GAPS, 4, 0)
