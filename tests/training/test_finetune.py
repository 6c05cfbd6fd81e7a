"""Stage 2 from a data set on disk to a policy that acts: data, cache, training, evaluation."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from policy_fixtures import tiny_backbone
from world_fixtures import BlobWorld

from alam_core.checkpoints import checkpoint_hash
from alam_core.config import parse_args
from alam_core.data.frames import frame_store
from alam_core.data.lerobot.reader import LeRobotDataset
from alam_core.data.lerobot.writer import LeRobotWriter
from alam_core.errors import UserError
from alam_core.latent_action import TransitionConfig, TransitionModel, encode_images
from alam_core.latent_action.cache import cached_latents
from alam_core.policy.config import ModelConfig
from alam_core.policy.samples import AugmentConfig
from alam_core.robots.piper import JOINT_NAMES
from alam_core.runtime.runner import PolicyRunner
from alam_core.types import Observation
from alam_training.commands.finetune import finetune, main
from alam_training.loop.config import LoopConfig, OptimConfig
from alam_training.stage2.config import FinetuneConfig, RolloutConfig
from alam_training.stage2.data import load

LENGTHS = (9, 7, 8, 6)
TINY = {"image_size": 32, "small": tiny_backbone()}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "blobs"
    world = BlobWorld()
    with LeRobotWriter(
        root,
        10.0,
        {"third_person": (32, 32), "wrist": (32, 32)},
        list(JOINT_NAMES),
        list(JOINT_NAMES),
        "blob",
    ) as writer:
        for seed, length in enumerate(LENGTHS):
            seen, actions = [world.reset(seed)], []
            for t in range(length):
                actions.append(np.array([(t + 1) / length, *np.zeros(5), 0.05], np.float32))
                seen.append(world.step(actions[-1]))
            images = {
                view: np.stack([o.images[view] for o in seen[:-1]])
                for view in world.observe().images
            }
            writer.add_episode(
                images,
                np.stack([o.state for o in seen[:-1]]),
                np.stack(actions),
                "push the red blob",
            )
    return root


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    torch.manual_seed(0)
    model = TransitionModel(
        TransitionConfig(
            image_size=16,
            patch_size=8,
            width=16,
            heads=2,
            encoder_layers=1,
            decoder_layers=1,
            latent_tokens=2,
            latent_dim=6,
            codebook_size=8,
        )
    )
    return model.save_pretrained(tmp_path_factory.mktemp("encoder") / "model")


def settings(dataset, run, encoder="", steps=3, **changes):
    loop = LoopConfig(
        steps=steps, optim=OptimConfig(warmup_steps=1), cpu=True, save_every=2, eval_every=2
    )
    values = {
        "batch": 4,
        "held_out": 0.25,
        "relative_joints": list(JOINT_NAMES[:6]),
        "model": ModelConfig(horizon=4, **TINY),
        "loop": loop,
    }
    return FinetuneConfig(str(dataset), str(run), str(encoder), **(values | changes))


def test_latents_are_those_of_adjacent_frames_and_encoded_once(
    dataset, encoder, tmp_path, monkeypatch
):
    frames = frame_store(LeRobotDataset(dataset), "wrist", 16)
    z = cached_latents(encoder, "wrist", frames, tmp_path)
    model = TransitionModel.from_pretrained(encoder)
    for e, length in enumerate(LENGTHS):
        pictures, rows = frames.episode(e), slice(frames.starts[e], frames.starts[e] + length)
        np.testing.assert_allclose(
            z[rows][:-1], encode_images(model, pictures[:-1], pictures[1:]), atol=1e-4
        )
        np.testing.assert_allclose(
            z[rows][-1:], encode_images(model, pictures[-1:], pictures[-1:]), atol=1e-4
        )

    def forbidden(*_):
        raise AssertionError("encoded twice")

    monkeypatch.setattr("alam_core.latent_action.cache.encode_images", forbidden)
    np.testing.assert_array_equal(cached_latents(encoder, "wrist", frames, tmp_path), z)
    with torch.no_grad():
        next(model.parameters()).add_(0.1)
    other = model.save_pretrained(tmp_path / "other")
    with pytest.raises(AssertionError, match="encoded twice"):
        cached_latents(other, "wrist", frames, tmp_path)


def test_with_latents_a_policy_is_trained_saved_and_acts(dataset, encoder, tmp_path):
    policy, finished = finetune(settings(dataset, tmp_path / "run", encoder))
    assert finished
    assert policy.config.latent_views == ["third_person", "wrist"]
    assert policy.config.latent_encoder == checkpoint_hash(encoder)
    runner = PolicyRunner.from_pretrained(tmp_path / "run" / "policy")
    chunk = runner.infer(BlobWorld().reset(0))
    assert chunk.actions.shape == (4, 7)
    assert chunk.latents["wrist"].shape == (4, 12)
    assert runner.latent_shape == (2, 6)
    assert runner.dt == pytest.approx(0.1)
    card = (tmp_path / "run" / "policy" / "README.md").read_text()
    assert "3 training episodes" in card
    assert "action_first" in card


def test_without_an_encoder_a_policy_generates_actions_only(dataset, tmp_path):
    policy, _ = finetune(settings(dataset, tmp_path / "run"))
    assert policy.layout.modalities == ("action",)
    assert PolicyRunner(policy).infer(BlobWorld().reset(0)).latents == {}


def test_an_interrupted_and_resumed_run_ends_with_the_same_weights(dataset, tmp_path):
    whole, _ = finetune(settings(dataset, tmp_path / "whole", steps=4))
    config = settings(dataset, tmp_path / "parts", steps=4)
    config.loop = dataclasses.replace(config.loop, max_minutes=1e-9)
    finetune(config)
    resumed, _ = finetune(
        dataclasses.replace(config, loop=dataclasses.replace(config.loop, max_minutes=0.0))
    )
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_data_normalised_targets_and_held_out_instructions(dataset, encoder, tmp_path):
    config, data, *_ = load(settings(dataset, tmp_path, encoder))
    batch = data.batch(np.arange(sum(LENGTHS)))
    targets = batch["targets"]["action"].numpy()
    moving = data.stats.action_std > 3e-3 + 1e-6
    np.testing.assert_allclose(targets.std(0)[moving], 1, atol=1e-3)
    assert batch["targets"]["wrist"].shape == (
        sum(LENGTHS),
        4,
        7,
    )  # projected to the action's width by default
    assert config.relative().tolist() == [True] * 6 + [False]


def test_mistakes_are_named(dataset, encoder, tmp_path):
    with pytest.raises(UserError, match="not a LeRobot data set"):
        finetune(settings(tmp_path / "nothing", tmp_path / "run"))
    with pytest.raises(UserError, match="no view 'side'"):
        finetune(settings(dataset, tmp_path / "run", views=["side"]))
    with pytest.raises(UserError, match="no checkpoint at"):
        finetune(settings(dataset, tmp_path / "run", tmp_path / "nothing"))
    with pytest.raises(UserError, match="joint7"):
        finetune(settings(dataset, tmp_path / "run", relative_joints=["joint7"]))


@pytest.mark.parametrize(
    "config", sorted(Path("training/configs").glob("finetune_*.yaml")), ids=lambda path: path.stem
)
@pytest.mark.parametrize("model", [None, "training/configs/models/policy_compat.yaml"])
def test_presets_are_valid_with_each_model_file(config, model):
    parsed = parse_args(
        FinetuneConfig, "", ["--config", str(config), *(["--model", model] if model else [])]
    )
    assert parsed.data and parsed.loop.steps >= 1000
    assert parsed.model.projection == ("learned" if model else "pca")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--model.image_size", "40"], "multiple of 16"),
        (["--model.small.heads", "3"], "multiple of model.small.heads"),
        (["--model.small.channels", "[8, 8]"], "four numbers"),
        (["--model.denoising_steps", "0"], "model.denoising_steps is 0"),
        (["--model.process", "gan"], "choose one of flow, diffusion"),
        (["--model.given_steps", "16"], "choose 0 to 15"),
        (["--loop.eval_every", "0"], "loop.eval_every is 0"),
        (["--loop.mixed_precision", "fp8"], "mixed_precision is .fp8.: choose one of no, bf16"),
        (["--batch", "0"], "batch and draws"),
        (["--held_out", "1"], "held_out is 1.0"),
        (["--latent_targets", "all"], "choose one of cumulative, adjacent"),
        (["--augment.shift", "-1"], "must not be negative"),
        (["--weights", "lerobot/pi0_base"], "are for pi0"),
        (["--std_floor", "0"], "std_floor must be above 0"),
        (["--model.small.vocabulary", "1"], "at least 2"),
        (["--views", "wrist"], r"a list is written \[a,b\]"),
    ],
)
def test_bad_values_are_refused_before_any_work(args, words, monkeypatch):
    monkeypatch.setattr("sys.argv", ["training/finetune.py", "--data", "nowhere", *args])
    with pytest.raises(UserError, match=words):
        main()


def write_toy(root, instructions, names=("a", "b"), state_names=("a", "b")):
    rng = np.random.default_rng(0)
    with LeRobotWriter(
        root, 10.0, {"top": (32, 32)}, list(state_names), list(names), "toy"
    ) as writer:
        for instruction in instructions:
            images = {"top": rng.integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)}
            writer.add_episode(
                images, rng.normal(size=(6, 2)), rng.normal(size=(6, 2)), instruction
            )
    return root


def test_words_that_the_tokenizer_cannot_tell_apart_are_named(tmp_path):
    root = write_toy(tmp_path / "set", ["put it in the box", "put it in the pan"] * 2)
    with pytest.raises(
        UserError, match="the words box and pan of .*set' have the same token of 2048"
    ):
        finetune(settings(root, tmp_path / "run", relative_joints=[]))
    assert not (root / ".cache").exists()  # before any picture was decoded
    model = ModelConfig(
        horizon=4, **(TINY | {"small": dataclasses.replace(TINY["small"], vocabulary=4096)})
    )
    assert finetune(settings(root, tmp_path / "run", relative_joints=[], model=model))[1]


def test_numbers_that_are_not_finite_are_named(tmp_path):
    root = write_toy(tmp_path / "set", ["go"] * 4)
    (file,) = (root / "data").rglob("*.parquet")
    table = pq.read_table(file)
    states = table["observation.state"].to_pylist()
    states[13][1] = float("nan")
    at = table.schema.get_field_index("observation.state")
    pq.write_table(
        table.set_column(at, table.schema.field(at), pa.array(states, table.schema.field(at).type)),
        file,
    )
    with pytest.raises(UserError, match="observation.state is not finite in episode 2, row 1, 'b'"):
        finetune(settings(root, tmp_path / "run", relative_joints=[]))


def test_a_joint_with_another_index_in_the_state_cannot_be_relative(tmp_path):
    root = write_toy(tmp_path / "set", ["go"] * 4, state_names=("b", "a"))
    with pytest.raises(UserError, match="'a' is number 1 of .*'s action and number 2 of its state"):
        finetune(settings(root, tmp_path / "run", relative_joints=["a"]))


def test_a_run_is_not_resumed_with_other_data(tmp_path):
    root = write_toy(tmp_path / "set", ["go"] * 4)
    finetune(settings(root, tmp_path / "run", relative_joints=[]))
    with LeRobotWriter(
        root, 10.0, {"top": (32, 32)}, ["a", "b"], ["a", "b"], "toy", append=True
    ) as writer:
        writer.add_episode(
            {"top": np.zeros((6, 32, 32, 3), np.uint8)}, np.ones((6, 2)), np.ones((6, 2)), "go"
        )
    with pytest.raises(UserError, match="data_digest"):
        finetune(settings(root, tmp_path / "run", relative_joints=[]))


def test_impossible_rollouts_are_reported_before_training(dataset, tmp_path):
    for rollouts, words in (
        (RolloutConfig(episodes=1, world="nowhere"), "there is no world 'nowhere'"),
        (RolloutConfig(episodes=1), "needs chunks of 8 steps, this policy's have 4"),
    ):
        with pytest.raises(UserError, match=words):
            finetune(settings(dataset, tmp_path / "run", rollouts=rollouts))
    assert not list((tmp_path / "run").glob("events*"))


def test_a_card_says_how_chunks_are_generated(dataset, encoder, tmp_path):
    model = ModelConfig(horizon=4, process="diffusion", coupling="two_stage", **TINY)
    finetune(settings(dataset, tmp_path / "run", encoder, steps=1, model=model))
    assert "by two-stage diffusion" in (tmp_path / "run" / "policy" / "README.md").read_text()


def test_a_state_may_be_narrower_than_the_action_if_nothing_is_relative(tmp_path):
    rng = np.random.default_rng(0)
    with LeRobotWriter(
        tmp_path / "set", 10.0, {"top": (32, 32)}, ["x", "y"], ["a", "b", "c"], "toy"
    ) as writer:
        for _ in range(4):
            images = {"top": rng.integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)}
            writer.add_episode(images, rng.normal(size=(6, 2)), rng.normal(size=(6, 3)), "go")
    policy, finished = finetune(settings(tmp_path / "set", tmp_path / "run", relative_joints=[]))
    assert finished
    observation = Observation(
        {"top": np.zeros((32, 32, 3), np.uint8)}, np.zeros(2, np.float32), "go"
    )
    assert PolicyRunner(policy).infer(observation).actions.shape == (4, 3)
    with pytest.raises(
        UserError, match="need a state that begins with the 3 joints, it has 2 numbers"
    ):
        finetune(settings(tmp_path / "set", tmp_path / "run", relative_joints=["a"]))


def test_ranks_share_a_batch_held_out_episodes_are_not_in_it_and_all_ranks_end_well(
    dataset, tmp_path, monkeypatch
):
    made = {}

    def catch(model, batch_at, *_):
        for rank, ranks in ((0, 1), (0, 2), (1, 2)):
            made[rank, ranks] = torch.cat(
                [batch_at(step, rank, ranks)["state"] for step in range(8)]
            )
        return SimpleNamespace(model=model, stopped="", step=8, main=False)

    monkeypatch.setattr("alam_training.commands.finetune.train", catch)
    _, finished = finetune(
        settings(dataset, tmp_path / "run", batch=16, augment=AugmentConfig(0, 0.0, 0.0, 0.0))
    )
    assert finished and not (tmp_path / "run" / "policy").exists()  # the main process writes it
    assert torch.equal(
        made[0, 1].view(8, 8, 2, 7),
        torch.stack([made[0, 2].view(8, 8, 7), made[1, 2].view(8, 8, 7)], 2),
    )
    content = LeRobotDataset(dataset)
    seen = {tuple(state) for state in made[0, 1].tolist()}
    drawn = [
        sum(tuple(state) in seen for state in content.episode(e).state.tolist())
        for e in range(len(LENGTHS))
    ]
    assert sorted(drawn)[0] == 0 and sorted(drawn)[1] > 0
