"""What stage 2 reads of a data set: instructions row by row, columns of any name, and all episodes
but the broken and excluded ones, which are told.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from lerobot_fixtures import DATA, EPISODES, edit_rows, rename_feature
from policy_fixtures import tiny_backbone

from alam_core.config import parse_args
from alam_core.data.frames import frame_store
from alam_core.data.lerobot import LeRobotDataset, LeRobotWriter, layout
from alam_core.errors import UserError, run_main
from alam_core.latent_action import TransitionConfig, TransitionModel, encode_images
from alam_core.policy.config import ModelConfig
from alam_core.policy.samples import last_frames
from alam_training.commands.finetune import finetune, main
from alam_training.loop.config import LoopConfig, OptimConfig
from alam_training.stage2.batches import split_samples
from alam_training.stage2.config import FinetuneConfig
from alam_training.stage2.data import load

EPISODES_WRITTEN, LENGTH, CUT = 20, 6, 4
FIRST = 3 * LENGTH  # row of the first frame of episode 3


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "toy"
    rng = np.random.default_rng(0)
    with LeRobotWriter(root, 10.0, {"top": (32, 32)}, ["a", "b"], ["a", "b"], "toy") as writer:
        for e in range(EPISODES_WRITTEN):
            images = {"top": rng.integers(0, 256, (LENGTH, 32, 32, 3), dtype=np.uint8)}
            state, action = rng.normal(size=(2, LENGTH, 2))
            writer.add_episode(images, state, action, ("wave", "rest")[e % 2])
    return root


@pytest.fixture
def root(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "toy"))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    size = {"image_size": 16, "patch_size": 8, "width": 16, "heads": 2, "codebook_size": 8}
    layers = {"encoder_layers": 1, "decoder_layers": 1, "latent_tokens": 2, "latent_dim": 6}
    model = TransitionModel(TransitionConfig(**size, **layers))
    return model.save_pretrained(tmp_path_factory.mktemp("encoder") / "model")


def settings(root: Path, **changes: object) -> FinetuneConfig:
    values = {
        "batch": 4,
        "held_out": 0.1,
        "model": ModelConfig(horizon=4, image_size=32, small=tiny_backbone()),
        "loop": LoopConfig(steps=2, cpu=True, optim=OptimConfig(warmup_steps=1)),
    }
    return FinetuneConfig(str(root), str(root.parent / "run"), **(values | changes))


def report(root: Path) -> dict:
    (row,) = json.loads((root.parent / "run/data_report.json").read_text())["sources"]
    return row


def break_rows(root: Path, *episodes: int) -> None:
    def change(rows: list[dict]) -> None:
        for e in episodes:
            rows[e * LENGTH + 2][layout.STATE] = [0.5, float("nan")]

    edit_rows(root / DATA, change)


def change_task(root: Path) -> None:
    """Episode 3 rests for ``CUT`` frames, and then waves."""

    def change(rows: list[dict]) -> None:
        for row in rows[FIRST + CUT : FIRST + LENGTH]:
            row["task_index"] = 0

    edit_rows(root / DATA, change)


def test_chunks_end_where_the_instruction_changes(root: Path, encoder: Path) -> None:
    load(settings(root, encoder=str(encoder)))  # the latents of the whole episode are cached
    change_task(root)
    _, data, tokenizer, _ = load(settings(root, encoder=str(encoder), latent_targets="adjacent"))
    batch = data.batch(np.arange(FIRST, FIRST + LENGTH))
    wave, rest = tokenizer(["wave", "rest"])
    assert [torch.equal(words, rest) for words in batch["words"]] == [True] * CUT + [False] * 2
    assert [torch.equal(words, wave) for words in batch["words"]] == [False] * CUT + [True] * 2
    actions = LeRobotDataset(root).episode(3).action
    chunk = batch["targets"]["action"].numpy() * data.stats.action_std + data.stats.action_mean
    np.testing.assert_allclose(chunk[1], actions[[1, 2, 3, 3]], atol=1e-5)
    np.testing.assert_allclose(chunk[4], actions[[4, 5, 5, 5]], atol=1e-5)
    # At the end of a part, an image is paired with itself: nothing moves any more.
    end = frame_store(LeRobotDataset(root), "top", 16).array[FIRST + CUT - 1][None]
    still = encode_images(TransitionModel.from_pretrained(encoder), end, end).reshape(1, -1)
    np.testing.assert_allclose(
        data.latents["top"][[FIRST + CUT - 1]], data.stats.latents["top"].project(still), atol=1e-3
    )
    # The episode stays one episode: it is held out, excluded and reported as before.
    assert len(data.lengths) == EPISODES_WRITTEN and report(root)["episodes"] == EPISODES_WRITTEN


def test_last_frames_end_parts_at_episodes_and_at_changes_of_the_task() -> None:
    lengths, tasks = np.array([3, 0, 4]), np.array([0, 0, 1, 1, 1, 0, 0])
    assert last_frames(lengths, tasks).tolist() == [1, 1, 2, 4, 4, 6, 6]


def test_columns_of_other_names_are_listed_and_can_be_given(root: Path) -> None:
    for old, new in (
        (layout.STATE, "state"),
        (layout.ACTION, "actions"),
        (layout.IMAGES + "top", "image"),
    ):
        rename_feature(root, old, new)
    with pytest.raises(
        UserError,
        match=r"no column 'observation.state' .* are: state \(2\), actions \(2\): .*--state",
    ):
        load(settings(root))
    with pytest.raises(UserError, match=r"no column 'action' .*--action"):
        load(settings(root, state="state"))
    given = ["--data", str(root), "--state", "state", "--action", "actions", "--exclude", "[4]"]
    parsed = parse_args(FinetuneConfig, "", [*given, "--images", '{"hand": "image"}'])
    named = {name: getattr(parsed, name) for name in ("state", "action", "images", "exclude")}
    policy, data, *_ = load(settings(root, **named))
    assert policy.views == ["hand"] and policy.joint_names == ["a", "b"] and data.left_out == [4]


def test_a_policy_keeps_the_names_of_its_state_and_its_instructions(root: Path) -> None:
    change_task(root)
    (root / "meta/info.json").write_text(
        (root / "meta/info.json").read_text().replace('"a"', '"elbow"')
    )
    known = list(dict.fromkeys(LeRobotDataset(root).tasks.values()))
    policy, _, *_ = load(settings(root))
    assert policy.state_names == policy.joint_names == ["elbow", "b"]
    assert sorted(policy.instructions) == sorted(known) and len(known) == 2
    only_even = load(settings(root, exclude=list(range(1, EPISODES_WRITTEN, 2))))[0]
    assert len(only_even.instructions) == 1  # those of excluded episodes are not trained on


def test_a_policy_is_trained_without_a_broken_and_an_excluded_episode(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    break_rows(root, 3)
    policy, finished = finetune(settings(root, exclude=[7]))
    assert finished and all(value.isfinite().all() for value in policy.state_dict().values())
    told = capsys.readouterr().out
    assert "1 broken and left out: " in told and "excluded: episodes 7" in told
    assert "observation.state is not finite in episode 3, row 2, 'b'" in told
    assert [fault["episode"] for fault in report(root)["broken"]] == [3]
    assert report(root)["excluded"] == [7]
    assert "16 training episodes" in (root.parent / "run/policy/README.md").read_text()
    config = settings(root, exclude=[7])
    _, data, *_ = load(config)
    rows, held_out, episodes = split_samples(config, data)
    assert episodes == EPISODES_WRITTEN - 2 - 2
    assert not {3, 7} & set(data.episode_of[np.append(rows, held_out)])
    kept = ~np.isin(data.episode_of, [3, 7])
    np.testing.assert_allclose(data.stats.state_mean, data.states[kept].mean(0), atol=1e-6)
    with pytest.raises(UserError, match="data_digest"):  # a resumed run has the same data
        finetune(settings(root))


def test_more_broken_episodes_than_allowed_stop_training_before_it_begins(root: Path) -> None:
    break_rows(root, 3, 5)
    with pytest.raises(UserError, match=r"2 broken of 20 episodes .* --max_broken 0\.05"):
        load(settings(root))
    assert not (root / ".cache").exists()  # before any video was decoded
    assert load(settings(root, max_broken=0.1))[1].left_out == [3, 5]
    assert load(settings(root, exclude=[5]))[1].left_out == [3, 5]
    with pytest.raises(UserError, match="has no episode 20; it has the episodes 0 to 19"):
        load(settings(root, exclude=[20]))
    break_rows(root, *range(EPISODES_WRITTEN))
    with pytest.raises(
        UserError, match=r"no episode of .* of 20, 20 are broken and 0 excluded \(for exam"
    ):
        load(settings(root, max_broken=1.0))


def test_a_fault_that_is_not_allowed_is_one_line_and_exit_code_2(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    column = f"videos/{layout.IMAGES}top/file_index"
    edit_rows(root / EPISODES, lambda rows: rows[3].update({column: None}))
    command = ["training/finetune.py", "--data", str(root), "--run", str(root.parent / "run")]
    monkeypatch.setattr("sys.argv", [*command, "--max_broken", "0"])
    with pytest.raises(SystemExit) as stopped:
        run_main(main)
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and error.startswith("error: ") and error.count("\n") == 1
    assert f"meta/episodes', episode 3: '{column}' is null" in error and "--exclude" in error


def test_videos_metadata_and_files_that_are_broken_count_together(root: Path) -> None:
    edit_rows(root / EPISODES, lambda rows: rows[3].update({"data/file_index": None}))
    edit_rows(root / EPISODES, lambda rows: rows[5].update({"data/file_index": 8}))
    video = next((root / "videos").rglob("*.mp4"))
    content = video.read_bytes()
    video.write_bytes(content[: int(len(content) * 0.93)])
    _, data, *_ = load(settings(root, max_broken=0.5))
    why = {fault["episode"]: fault["why"] for fault in report(root)["broken"]}
    assert data.left_out == sorted(why) and max(why) == EPISODES_WRITTEN - 1 and len(why) < 8
    assert "'data/file_index' is null" in why[3] and "file-008.parquet' is missing" in why[5]
    assert "is cut short" in why[EPISODES_WRITTEN - 1]
    assert data.lengths[3] == 0 and len(data.frames["top"].array) == data.lengths.sum()


def test_a_repaired_episode_is_decoded_and_trained_on_again(root: Path) -> None:
    edit_rows(root / EPISODES, lambda rows: rows[3].update(length=None))
    assert load(settings(root))[1].left_out == [3]
    edit_rows(root / EPISODES, lambda rows: rows[3].update(length=LENGTH))
    _, data, *_ = load(settings(root))
    assert not data.left_out and data.frames["top"].episode(3).any()
