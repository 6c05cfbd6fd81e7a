"""``alam check`` on data sets, bags and checkpoints: report, contact sheet and exit code."""

import importlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from check_fixtures import FPS, clean, numbers, pictures, write
from PIL import Image
from policy_fixtures import tiny_policy
from rich.console import Console
from test_convert_rosbag import image_message, joint_message, write_bag

from alam_core.errors import UserError
from alam_core.latent_action import TransitionConfig, TransitionModel
from alam_core.robots.piper import JOINT_NAMES
from alam_training.commands.check import CheckConfig, check, main

ROOT = Path(__file__).resolve().parents[2]
CHECKPOINTS = ROOT / "checkpoints/piper_place"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("data") / "clean")


def report_of(*paths: Path, **options: Any) -> dict[str, Any]:
    """The report on the first path."""
    config = CheckConfig([str(path) for path in paths], **{"sheets": "", **options})
    return check(config, Console(quiet=True))[0].to_dict()


def messages(report: dict[str, Any], level: str) -> list[str]:
    return [f"{f['where']}: {f['message']}" for f in report["findings"] if f["level"] == level]


def run(monkeypatch: pytest.MonkeyPatch, *args: object) -> int:
    monkeypatch.setattr("sys.argv", ["alam check", *map(str, args)])
    return main()


def test_a_clean_data_set_passes_with_a_contact_sheet(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    assert run(monkeypatch, dataset, "--sheets", tmp_path / "sheets") == 0
    out = capsys.readouterr().out
    assert "90 at 10 per second" in out and "'put the red cube on the plate'" in out
    assert "error" not in out and "warning" not in out
    (sheet,) = (tmp_path / "sheets").iterdir()
    assert str(sheet) in out.replace("\n", "")
    pixels = np.asarray(Image.open(sheet))
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 100  # pictures, not one colour


def test_errors_set_the_exit_code_and_are_in_the_json(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(dataset, broken)
    (file,) = (broken / "videos/observation.images.wrist").rglob("*.mp4")
    file.unlink()
    args = ("--thorough", "true", "--json", "true", "--sheets", tmp_path / "sheets")
    assert run(monkeypatch, dataset, broken, *args) == 1
    good, bad = json.loads(capsys.readouterr().out)
    assert not messages(good, "error") and Path(good["sheet"]).is_file()
    (error,) = messages(bad, "error")
    assert "view 'wrist', episodes 0, 1, 2" in error and str(file) in error


def test_each_input_has_a_contact_sheet_of_its_own(dataset: Path, tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a/x/set", "b/x/set", "x_set", "a/x_set")]
    for path in paths:
        shutil.copytree(dataset, path)
    reports = check(
        CheckConfig([str(path) for path in paths], sheets=str(tmp_path / "sheets")),
        Console(quiet=True),
    )
    names = [Path(report.sheet).name for report in reports]
    assert names[0] == "x_set.png" and names[1] == "b_x_set.png" and len({*names}) == 4
    assert {path.name for path in (tmp_path / "sheets").iterdir()} == {*names}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "does not exist"),
        ("notes.txt", "holds nothing that can be checked"),
        ("bridge-train.tfrecord-00000-of-00001", "alam convert --source rlds"),
        ("episode_0000001.npz", "alam convert --source calvin"),
        ("demo.hdf5", "alam convert --source libero"),
    ],
)
def test_what_cannot_be_checked_is_a_wrong_command(
    content: str, words: str, tmp_path: Path
) -> None:
    if content:
        (tmp_path / "given").mkdir()
        (tmp_path / "given" / content).touch()
    with pytest.raises(UserError, match=words):
        report_of(tmp_path / "given")


def test_a_data_set_that_cannot_be_opened_is_an_error(dataset: Path, tmp_path: Path) -> None:
    shutil.copytree(dataset, tmp_path / "broken")
    (tmp_path / "broken/meta/info.json").write_text("{")
    (error,) = messages(report_of(tmp_path / "broken"), "error")
    assert "broken JSON" in error


def our_bag(path: Path, gap: float = 0.0, lag: float = 0.0, every: int = 1, **options: Any) -> Path:
    """The joints and, but for ``every``, the cameras at 10 per second; the wrist camera pauses for
    ``gap`` s.
    """
    state, _ = numbers(0)
    topics: dict[str, list] = {"/third_person/color/image_raw": [], "/wrist/color/image_raw": []}
    topics["/joint_states"] = []
    for view, name in enumerate(list(topics)[:2]):
        images = list(zip(np.arange(30) / FPS, pictures(state, view), strict=True))
        for t, image in images[::every]:
            if not (view and 1 < t < 1 + gap):
                topics[name].append((t, image_message(t - lag, image)))
    for t, row in zip(np.arange(30) / FPS, state, strict=True):
        topics["/joint_states"].append((t, joint_message(t - lag, row.tolist(), JOINT_NAMES)))
    return write_bag(path, topics, **options)


def test_a_bag_shows_its_topics_and_what_convert_reads(tmp_path: Path) -> None:
    report = report_of(our_bag(tmp_path / "bag", task="put it down"), sheets=str(tmp_path / "s"))
    assert not messages(report, "error") + messages(report, "warning")
    wrist = report["facts"]["topic /wrist/color/image_raw"]
    assert "sensor_msgs/msg/Image, 30 messages, 10 per second, longest gap 0.10 s" in wrist
    assert report["facts"]["convert reads"].startswith("29 rows at 10 per second, views third")
    assert {row["column"] for row in report["columns"]} == set(JOINT_NAMES)
    assert Path(report["sheet"]).is_file()


@pytest.mark.parametrize(
    ("options", "level", "words"),
    [
        ({"gap": 1.5}, "warning", "no message for 1.50 s, 1.0 s after its first"),
        ({"gap": 1.5}, "error", "no message within 0.5 s"),
        ({"every": 4}, "error", "has 2.5 images per second, but there are 10 rows"),
        ({"lag": 3600.0}, "warning", "3.6e+03 s before the time of recording"),
        ({}, "warning", "no instruction"),
    ],
)
def test_what_is_wrong_with_a_bag_is_said(
    options: dict[str, float], level: str, words: str, tmp_path: Path
) -> None:
    report = report_of(our_bag(tmp_path / "bag", **options))
    assert any(words in message for message in messages(report, level)), report["findings"]


def test_a_few_of_many_bags_are_read_unless_all_are_wanted(tmp_path: Path) -> None:
    for number in range(4):
        our_bag(tmp_path / f"bags/{number}", task="put it down")
    shutil.rmtree(tmp_path / "bags/1")
    damaged = next((tmp_path / "bags/2").glob("*.mcap"))
    damaged.write_bytes(damaged.read_bytes()[:1000])
    our_bag(tmp_path / "bags/5", task="put it down")
    report = report_of(tmp_path / "bags")
    assert any("3 of 4 were read" in note for note in messages(report, "note"))
    (error,) = [m for m in messages(report_of(tmp_path / "bags", thorough=True), "error")]
    assert "bag '2'" in error and "cannot be read" in error


def test_the_shipped_checkpoints_pass_and_belong_together() -> None:
    policy = report_of(CHECKPOINTS)
    assert policy["findings"] == [] and policy["facts"]["a chunk"] == "16 steps of 0.1 s"
    transition = report_of(CHECKPOINTS / "transition")
    assert transition["findings"] == []
    assert transition["facts"]["hash"] in policy["facts"]["encoder"]


def tiny_transition(folder: Path) -> Path:
    size = {"image_size": 16, "patch_size": 8, "width": 16, "heads": 2, "latent_tokens": 2}
    layers = {"encoder_layers": 1, "decoder_layers": 1, "latent_dim": 3, "codebook_size": 8}
    return TransitionModel(TransitionConfig(**size, **layers)).save_pretrained(folder)


def test_a_policy_of_another_encoder_or_other_data_is_an_error(
    dataset: Path, tmp_path: Path
) -> None:
    policy = tiny_policy()
    policy.stats.state_mean[:] = clean().episodes[0].state.mean(0)
    folder = policy.save_pretrained(tmp_path / "policy")
    assert report_of(folder, dataset)["findings"] == []
    (error,) = messages(report_of(folder, tiny_transition(tmp_path / "encoder")), "error")
    assert "latents are those of the transition model 0123456789abcdef" in error
    policy.config.dt, policy.config.joint_names = 0.2, [*JOINT_NAMES[:6], "hand"]
    folder = policy.save_pretrained(tmp_path / "other")
    errors = messages(report_of(folder, dataset), "error")
    assert "other data" in errors[0] and "another rate" in errors[1]


def test_what_is_wrong_with_a_checkpoint_is_said(tmp_path: Path) -> None:
    policy = tiny_policy()
    policy.stats.state_mean[1] = 60.0
    policy.stats.action_std[0, 0] = 0.0
    with torch.no_grad():
        next(policy.parameters()).fill_(torch.nan)
    report = report_of(policy.save_pretrained(tmp_path / "policy"))
    assert any("degrees" in warning for warning in messages(report, "warning"))
    errors = messages(report, "error")
    assert len(errors) == 2
    for words in ("not finite", "not above 0"):
        assert any(words in error for error in errors), words
    (tmp_path / "policy/model.safetensors").write_bytes(b"")
    (error,) = messages(report_of(tmp_path / "policy"), "error")
    assert "model.safetensors" in error


@pytest.mark.parametrize(
    ("trainer", "decoder"),
    [("finetune", "alam_training.stage2.data.decode"), ("pretrain", "{}.open_sources")],
)
def test_trainers_print_findings_before_decoding(
    trainer: str,
    decoder: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    def decode(*_: object) -> None:
        raise UserError("decoding begins")

    root = write(tmp_path / "set", wrist=np.zeros((30, 32, 32, 3), np.uint8))
    command = f"alam_training.commands.{trainer}"
    module = importlib.import_module(command)
    monkeypatch.setattr(decoder.format(command), decode)
    monkeypatch.setattr("sys.argv", [trainer, "--data", str(root), "--run", str(tmp_path / "run")])
    with pytest.raises(UserError, match="decoding begins"):
        module.main()
    said = capsys.readouterr().err
    assert "error view 'wrist', episodes 0, 1, 2" in said and "black or of one colour" in said
    assert f"'alam check {root}' tells more" in said
