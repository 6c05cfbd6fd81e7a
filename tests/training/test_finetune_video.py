"""Stage 2 on few labels and video without labels: what is read, drawn and learned."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lerobot_fixtures import DATA, edit_rows
from policy_fixtures import tiny_backbone
from test_finetune_data import EPISODES_WRITTEN, LENGTH, encoder, original, root, settings
from video_fixtures import write_video

from alam_core.data.lerobot import layout
from alam_core.errors import UserError
from alam_core.policy.config import ModelConfig
from alam_core.policy.joint import JointPolicy
from alam_training.commands.finetune import finetune
from alam_training.loop.gradients import map_together
from alam_training.stage2.batches import TrainingBatches, split_samples
from alam_training.stage2.config import FinetuneConfig, VideoConfig
from alam_training.stage2.data import load

__all__ = ["encoder", "original", "root"]  # fixtures


@pytest.fixture
def films(tmp_path: Path) -> Path:
    for e in range(3):
        write_video(tmp_path / "films" / f"{e}.mp4", 14, e, fps=20)
        (tmp_path / "films" / f"{e}.txt").write_text("wave\n")
    return tmp_path / "films"


def few(root: Path, encoder: Path, **changes: object) -> FinetuneConfig:
    values = {"encoder": str(encoder), "labelled": 2, "video": str(root)}
    return settings(root, **(values | changes))


def batches(config: FinetuneConfig) -> TrainingBatches:
    policy_config, data, tokenizer, videos = load(config)
    policy = JointPolicy(policy_config, data.stats, tokenizer)
    return TrainingBatches(config, policy, data, split_samples(config, data)[0], videos)


def test_labels_that_are_dropped_are_never_read(root, encoder, capsys):
    def spoil(rows: list[dict]) -> None:
        for row in rows:
            if row["episode_index"] >= 8:
                row[layout.ACTION] = [float("nan")] * 2

    edit_rows(root / DATA, spoil)
    config, data, _, (video,) = load(few(root, encoder, held_out=0.0))
    assert sorted(set(range(EPISODES_WRITTEN)) - set(data.left_out)) == [0, 1, 2, 3]
    assert data.stats.state_range.max() == data.states[: 4 * LENGTH].max()
    assert config.model.stateless and not video.samples.labelled
    assert len(video.rows) == EPISODES_WRITTEN * LENGTH
    assert "video without labels: toy: 20 episodes" in capsys.readouterr().out


def test_held_out_episodes_are_not_watched(root, encoder):
    config = few(root, encoder)
    _, data, _, (video,) = load(config)
    _, held_out, _ = split_samples(config, data)
    assert len(held_out) and not set(video.rows) & set(held_out)
    assert len(video.rows) == (EPISODES_WRITTEN - 2) * LENGTH


def test_the_labelled_episodes_do_not_depend_on_what_is_held_out(root, encoder):
    for share in (0.1, 0.5):
        _, data, *_ = load(few(root, encoder, held_out=share))
        rows, _, count = split_samples(few(root, encoder), data)
        assert count == 4 and set(data.episode_of[rows]) == {0, 1, 2, 3}
        assert not set(data.held_out) & {0, 1, 2, 3}


def test_a_batch_has_a_fixed_share_of_video_and_is_the_same_for_any_number_of_ranks(root, encoder):
    source = batches(few(root, encoder, batch=8, video_share=0.25))
    whole = source(3, 0, 1)
    assert whole["shares"]["action"].mean() == pytest.approx(1.0)
    assert (whole["shares"]["action"] == 0).sum() == 2
    assert not whole["known"][whole["shares"]["action"] == 0].any()
    assert (whole["shares"]["top"] == 1).all()
    parts = [source(3, rank, 2) for rank in range(2)]
    together = map_together(lambda two: torch.stack(two, 1).flatten(0, 1), parts)
    for key in ("images", "targets", "shares"):
        for name, value in whole[key].items():
            assert torch.equal(value, together[key][name]), (key, name)
    assert torch.equal(whole["words"], together["words"])


def test_an_interrupted_training_on_video_resumes_exactly(root, encoder, tmp_path):
    config = few(root, encoder, video_share=0.5)
    whole, _ = finetune(replace(config, run=str(tmp_path / "whole")))
    parts = replace(config, run=str(tmp_path / "parts"))
    finetune(replace(parts, loop=replace(config.loop, max_minutes=1e-9)))
    resumed, finished = finetune(parts)
    assert finished
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_a_folder_of_videos_with_captions_at_another_rate(root, encoder, films):
    config = few(root, encoder, video=[VideoConfig(str(films), images={"top": "video"})])
    _, data, _, (video,) = load(config)
    assert video.samples.stride == 2  # 20 frames a second instead of 10
    batch = video.samples.batch(np.array([0, 13]))
    assert batch["images"]["top"].float().mean() > 5
    assert batch["targets"]["top"].shape == data.batch(np.arange(2))["targets"]["top"].shape
    finetune(config)
    told = json.loads((Path(config.run) / "video_report.json").read_text())["sources"]
    assert [row["episodes"] for row in told] == [3]


def test_video_is_drawn_from_every_source(root, encoder, films, tmp_path):
    shutil.copytree(root, tmp_path / "more")
    sources = [
        VideoConfig(str(films), images={"top": "video"}),
        VideoConfig(str(tmp_path / "more")),
    ]
    source = batches(few(root, encoder, video=sources, batch=32, held_out=0.0))
    assert len(source.sources) == 3
    of, _ = source._draw(32, np.random.default_rng(0))
    assert set(of) == {0, 1, 2} and (of == 0).sum() == 16


def test_mistakes_are_named(root, encoder, films):
    with pytest.raises(UserError, match="views video, the policy sees top.*images"):
        load(few(root, encoder, video=str(films)))
    (films / "1.txt").unlink()
    images = {"top": "video"}
    with pytest.raises(UserError, match="1.mp4' has no instruction: write it into a text file"):
        load(few(root, encoder, video=[VideoConfig(str(films), images=images)]))
    load(few(root, encoder, video=[VideoConfig(str(films), images=images, instruction="rest")]))
    with pytest.raises(UserError, match="only through latents: give a transition model"):
        settings(root, video=str(root))
    with pytest.raises(UserError, match="not a folder"):
        load(few(root, encoder, video=str(root / "nothing")))


def test_controls_replace_the_targets(root, encoder):
    _, real, _, (video,) = load(few(root, encoder))
    _, zeros, _, (none,) = load(few(root, encoder, latent_control="zeros"))
    assert not zeros.latents["top"].any() and not none.samples.latents["top"].any()
    _, random, _, (noise,) = load(few(root, encoder, latent_control="random"))
    assert random.latents["top"].shape == real.latents["top"].shape
    rows = np.arange(12)  # the same vectors in the labelled episodes and in the video
    np.testing.assert_array_equal(random.latents["top"][rows], noise.samples.latents["top"][rows])
    assert abs(np.corrcoef(random.latents["top"][:, 0], real.latents["top"][:, 0])[0, 1]) < 0.4
    config, own, _, (moved,) = load(few(root, "", latent_control="state"))
    assert config.latent_views == ["top"] and config.latent_shape == [1, 2]
    change = own.stats.latents["top"].project(own.states[1:6] - own.states[:5])
    np.testing.assert_allclose(own.latents["top"][:5], change, atol=1e-5)
    np.testing.assert_allclose(moved.samples.latents["top"][:5], change, atol=1e-5)
    finetune(few(root, "", latent_control="state"))


def test_longer_steps_of_latents(root, encoder):
    _, near, *_ = load(few(root, encoder, video="", latent_targets="adjacent"))
    config, far, *_ = load(
        few(root, encoder, video="", latent_targets="adjacent", latent_seconds=0.2)
    )
    assert far.stride == 2 and config.latent_dt == pytest.approx(0.2)
    assert near.stride == 1 and not np.array_equal(near.latents["top"], far.latents["top"])
    targets = far.batch(np.array([0]))["targets"]["top"][0].numpy()
    np.testing.assert_array_equal(targets, far.latents["top"][[0, 2, 4, 5]])


def test_a_policy_labels_the_video_and_trains_on_it(root, encoder, tmp_path):
    own = ModelConfig(horizon=4, image_size=32, small=tiny_backbone(), times="own")
    first = replace(few(root, encoder, model=own), run=str(tmp_path / "first"))
    policy, _ = finetune(first)
    second = few(root, encoder, model=own, self_label=str(tmp_path / "first/policy"))
    _, data, _, (video,) = load(second)
    assert video.samples.labelled and video.samples.inferred.shape == (120, 4, 2)
    rows = video.rows[:3]
    batch = video.samples.batch(rows)
    actions, _ = policy.sample(
        batch["images"],
        batch["state"],
        batch["words"],
        known=torch.zeros(3, dtype=torch.bool),
        latents={"top": batch["targets"]["top"]},
    )
    assert actions.shape == (3, 4, 2) and torch.isfinite(batch["targets"]["action"]).all()
    assert np.ptp(video.samples.inferred[video.rows]) > 0.1
    source = batches(second)
    assert (source(0, 0, 1)["shares"]["action"] == 1).all()
    assert not source(0, 0, 1)["known"].all()
    _, finished = finetune(second)
    assert finished
    common = ModelConfig(horizon=4, image_size=32, small=tiny_backbone())
    finetune(replace(few(root, encoder, model=common), run=str(tmp_path / "common")))
    with pytest.raises(UserError, match="--model.times own"):
        load(few(root, encoder, self_label=str(tmp_path / "common/policy")))
    with pytest.raises(UserError, match="horizon 4, but the policy to train has 3"):
        load(replace(second, model=replace(own, horizon=3)))
    with pytest.raises(UserError, match="no video to label"):
        few(root, encoder, video="", self_label="somewhere")
