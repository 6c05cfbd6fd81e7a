"""Stage 2 from a data set on disk to a policy that acts: data, cache, training, evaluation."""

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from policy_fixtures import tiny_backbone, tiny_policy

from alam_core.checkpoints import checkpoint_hash
from alam_core.config import parse_args
from alam_core.data.frames import frame_store
from alam_core.data.lerobot.reader import LeRobotDataset
from alam_core.data.lerobot.writer import LeRobotWriter
from alam_core.data.video.files import VideoReader
from alam_core.errors import UserError
from alam_core.latent_action import TransitionConfig, TransitionModel, encode_images
from alam_core.latent_action.cache import adjacent_latents
from alam_core.policy.config import ModelConfig
from alam_core.policy.samples import AugmentConfig
from alam_core.robots.piper import JOINT_NAMES
from alam_core.runtime import PolicyRunner, Replanner
from alam_core.types import Observation
from alam_training.commands.evaluate import (
    Episode,
    EvaluateConfig,
    evaluate,
    figures,
    film,
    run_episode,
)
from alam_training.commands.finetune import finetune, main
from alam_training.loop.train import LoopConfig, OptimConfig
from alam_training.stage2.config import FinetuneConfig, RolloutConfig
from alam_training.stage2.data import load

LENGTHS = (9, 7, 8, 6)
TINY = {"image_size": 32, "small": tiny_backbone()}


class BlobWorld:
    """The action's first number is where a blob lies; succeeds when it is within 0.2 of 1.0 after
    step 3, whatever the seed.
    """

    name, dt, max_steps, action_dim, state_dim = "blob", 0.1, 6, 7, 7

    def __init__(self, name="blob", image_size=32):
        self.size = image_size

    def reset(self, seed):
        self.rng, self.seed, self.steps, self.at = np.random.default_rng(seed), seed, 0, 0.0
        self.task = ("even", "odd")[seed % 2]
        return self.observe()

    def observe(self, look=True):
        image = np.full((self.size, self.size, 3), 90, np.uint8)
        column = int(np.clip(self.at, 0, 1) * (self.size - 6))
        image[8:14, column : column + 6] = (200, 30, 30)
        state = np.array([self.at, *self.rng.normal(size=6) * 0.1], np.float32)
        images = {"third_person": image, "wrist": image[::-1].copy()} if look else {}
        return Observation(images, state, "push the red blob", 0.1 * self.steps)

    def step(self, action, look=True):
        self.steps += 1
        self.at = float(action[0])
        return self.observe(look)

    def hold(self, state):
        return state

    def success(self):
        return self.seed % 3 == 0 and self.steps >= 3

    def close(self):
        pass


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
    z = adjacent_latents(encoder, "wrist", frames, tmp_path)
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
    np.testing.assert_array_equal(adjacent_latents(encoder, "wrist", frames, tmp_path), z)
    with torch.no_grad():
        next(model.parameters()).add_(0.1)
    other = model.save_pretrained(tmp_path / "other")
    with pytest.raises(AssertionError, match="encoded twice"):
        adjacent_latents(other, "wrist", frames, tmp_path)


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
    assert "3 episodes to train on" in card
    assert "action_first" in card


def test_without_an_encoder_the_same_policy_has_actions_alone(dataset, tmp_path):
    policy, _ = finetune(settings(dataset, tmp_path / "run"))
    assert policy.layout.modalities == ("action",)
    assert PolicyRunner(policy).infer(BlobWorld().reset(0)).latents == {}


def test_an_interrupted_run_goes_on_to_the_same_weights(dataset, tmp_path):
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
    config, data, _ = load(settings(dataset, tmp_path, encoder))
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
def test_presets_are_whole(config, model):
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
        (["--loop.mixed_precision", "fp8"], "choose no or bf16"),
        (["--batch", "0"], "batch and draws"),
        (["--held_out", "1"], "held_out is 1.0"),
        (["--latent_targets", "all"], "choose cumulative or adjacent"),
        (["--augment.shift", "-1"], "must not be negative"),
        (["--weights", "lerobot/pi0_base"], "are for pi0"),
        (["--std_floor", "0"], "std_floor must be above 0"),
        (["--model.small.vocabulary", "1"], "at least 2"),
        (["--views", "wrist"], r"a list is written \[a,b\]"),
    ],
)
def test_values_that_cannot_be_are_refused_before_any_work(args, words, monkeypatch):
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


def test_words_that_the_policy_could_not_tell_apart_are_named(tmp_path):
    root = write_toy(tmp_path / "set", ["put it in the box", "put it in the pan"] * 2)
    with pytest.raises(
        UserError, match="the words box and pan of .*set' share a number among 2048"
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


def test_a_joint_that_stands_elsewhere_in_the_state_cannot_be_relative(tmp_path):
    root = write_toy(tmp_path / "set", ["go"] * 4, state_names=("b", "a"))
    with pytest.raises(UserError, match="'a' is number 1 of .*'s action and number 2 of its state"):
        finetune(settings(root, tmp_path / "run", relative_joints=["a"]))


def test_a_run_does_not_go_on_with_other_data(tmp_path):
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


def test_rollouts_that_cannot_be_are_told_before_training(dataset, tmp_path):
    for rollouts, words in (
        (RolloutConfig(episodes=1, world="nowhere"), "no world is called 'nowhere'"),
        (RolloutConfig(episodes=1), "needs chunks of 8 steps, this policy's have 4"),
    ):
        with pytest.raises(UserError, match=words):
            finetune(settings(dataset, tmp_path / "run", rollouts=rollouts))
    assert not list((tmp_path / "run").glob("events*"))


def test_a_card_says_how_chunks_are_generated(dataset, encoder, tmp_path):
    model = ModelConfig(horizon=4, process="diffusion", coupling="two_stage", **TINY)
    finetune(settings(dataset, tmp_path / "run", encoder, steps=1, model=model))
    assert "by two-stage diffusion" in (tmp_path / "run" / "policy" / "README.md").read_text()


def test_a_state_narrower_than_the_action_serves_where_nothing_is_relative(tmp_path):
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


@pytest.mark.parametrize("script", ["finetune", "evaluate"])
def test_a_script_without_arguments_says_what_to_type(script):
    done = subprocess.run(
        [sys.executable, f"training/{script}.py"], capture_output=True, text=True, check=True
    )
    assert f"python training/{script}.py --" in done.stdout
    wrong = subprocess.run(
        [sys.executable, f"training/{script}.py", "--nonsense", "1"], capture_output=True, text=True
    )
    assert wrong.returncode == 2
    assert "nonsense" in wrong.stderr


@pytest.fixture(scope="module")
def blob_policy(tmp_path_factory):
    return tiny_policy().save_pretrained(tmp_path_factory.mktemp("policy") / "policy")


def make_blobs(name, image_size):
    return BlobWorld(name, image_size)


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
    assert values["per_task"] == {
        "even": {"episodes": 3, "successes": 1},
        "odd": {"episodes": 2, "successes": 1},
    }
    written = json.loads((tmp_path / "blob.json").read_text())
    assert written["seeds"] == [0, 1, 2, 3, 4]
    assert written["values"]["alam"]["successes"] == 2


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


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"intervention": "freeze"}, "no intervention"), ({"horizon": 5}, "trained on 4")],
)
def test_what_a_policy_was_not_made_for_is_told_before_any_episode(
    blob_policy, tmp_path, changes, words
):
    without = tiny_policy(latent_views=[]).save_pretrained(tmp_path / "without")
    played = []
    config = EvaluateConfig(f"{blob_policy},{without}", "blob", 2, 0, 4, workers=0, **changes)
    with pytest.raises(UserError, match=words):
        evaluate(config, lambda *args: played.append(1) or make_blobs(*args))
    assert len(played) <= 1  # to see whether the first fits


def test_pictures_are_made_only_where_a_plan_or_a_film_needs_them():
    looks = []
    world = BlobWorld()
    world.observe = lambda look=True: looks.append(look) or BlobWorld.observe(world, look)
    for filmed, expected in (
        (False, [True, False, False, False, True, False, False]),
        (True, [True] * 7),
    ):
        looks.clear()
        run_episode(world, Replanner(PolicyRunner(tiny_policy()), 4), seed=1, film=filmed)
        assert looks == expected


def test_films_run_at_the_worlds_own_speed(tmp_path):
    world = BlobWorld()
    world.dt = 1 / 40
    still = SimpleNamespace(reset=lambda seed: None, act=lambda observation: np.zeros(7))
    film(
        EvaluateConfig(world="blob", video_folder=str(tmp_path)),
        run_episode(world, still, 3, film=True),
    )
    (path,) = tmp_path.iterdir()
    assert VideoReader(path).fps == 40.0


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
    assert values["per_task"]["even"] == {"episodes": 6, "successes": 2}
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


def test_a_second_policy_that_does_not_fit_is_refused_before_the_first_is_played(
    blob_policy, tmp_path
):
    short = tiny_policy(horizon=2).save_pretrained(tmp_path / "short")

    def never(name, size):
        world = BlobWorld(name, size)
        world.reset = None
        return world

    with pytest.raises(UserError, match="replanning every 4 steps"):
        evaluate(EvaluateConfig(f"{blob_policy},{short}", "blob", 5, 0, 4, workers=0), never)


def test_a_world_that_does_not_fit_the_policy_is_refused(blob_policy):
    class Other(BlobWorld):
        action_dim = 4

    with pytest.raises(UserError, match="give a policy trained on its data"):
        evaluate(
            EvaluateConfig(str(blob_policy), "blob", 1, workers=0, replan_every=4),
            lambda name, size: Other(name, size),
        )


def test_what_hinders_a_worker_is_told_in_one_line(blob_policy):
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


def test_the_interval_is_wilsons():
    done = [Episode(seed, seed < 41, 10, "") for seed in range(50)]
    assert figures(done)["ci95"] == [0.692, 0.9023]  # 41 of 50
    assert figures(done[:41])["ci95"][1] == 1.0
    assert "per_task" not in figures(done)
