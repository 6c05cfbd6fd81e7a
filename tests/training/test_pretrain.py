"""Pretraining on a synthetic video: it learns, it resumes exactly where it stopped, and it says
what it needs.
"""

import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml

from alam_core.config import parse_args
from alam_core.data.frames import FrameStore
from alam_core.data.lerobot.writer import LeRobotWriter
from alam_core.data.mixture import VideoSource
from alam_core.errors import run_main
from alam_core.latent_action import TransitionConfig, TransitionModel
from alam_core.latent_action.config import LossConfig
from alam_core.latent_action.triplets import GapConfig
from alam_training.commands.pretrain import main, pretrain
from alam_training.loop.config import LoopConfig, OptimConfig
from alam_training.stage1.config import PretrainConfig

ROOT = Path(__file__).resolve().parents[2]


def moving_square(
    episodes: int = 12, frames: int = 20, size: int = 16, seed: int = 0
) -> VideoSource:
    """Videos of a bright square that drifts over grey, in one direction per episode."""
    rng = np.random.default_rng(seed)
    array = np.full((episodes * frames, size, size, 3), 60, np.uint8)
    for e in range(episodes):
        position, velocity = rng.uniform(2, size - 6, 2), rng.choice([-0.5, 0.5], 2)
        for t in range(frames):
            y, x = (np.abs((position + t * velocity) % (2 * (size - 4)) - (size - 4))).astype(int)
            array[e * frames + t, y : y + 4, x : x + 4] = (250, 200, 50)
    return VideoSource(
        "square", [FrameStore(array, np.arange(episodes) * frames, np.full(episodes, frames))]
    )


def config(run: Path, steps: int, **fields: object) -> PretrainConfig:
    return PretrainConfig(
        data="square",
        run=str(run),
        batch=16,
        gaps=GapConfig("uniform", 6),
        probe_gap=4,
        model=TransitionConfig(
            image_size=16,
            patch_size=4,
            width=32,
            heads=2,
            encoder_layers=2,
            decoder_layers=2,
            latent_tokens=4,
            latent_dim=8,
            codebook_size=32,
            warmup_steps=steps // 2,
            losses=LossConfig(add=3.0, rev=3.0),  # the default, 10, costs this toy half a dB
        ),
        loop=LoopConfig(
            steps=steps,
            cpu=True,
            log_every=10,
            optim=OptimConfig(lr=5e-3, warmup_steps=20, ema_decay=0.98),
            **fields,
        ),  # type: ignore[arg-type]
    )


@pytest.mark.slow
def test_short_training_beats_copying_and_uses_z(tmp_path: Path) -> None:
    model, figures, finished = pretrain(config(tmp_path, 400), [moving_square(episodes=100)])
    assert finished
    assert figures["psnr_k"] > figures["copy_psnr_k"] + 2.5
    assert figures["psnr_k"] > figures["psnr_k_shuffled"] + 1.5
    assert figures["rev_rel"] < 1.7 and figures["effective_dims"] > 2
    again = TransitionModel.from_pretrained(tmp_path / "model")
    assert all(
        torch.equal(again.state_dict()[name], value) for name, value in model.state_dict().items()
    )
    assert f"{figures['psnr_k']:.4g}" in (tmp_path / "model" / "README.md").read_text()


def test_an_interrupted_and_resumed_run_equals_an_uninterrupted_one_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uninterrupted, _, _ = pretrain(config(tmp_path / "a", 24), [moving_square()])
    losses = TransitionModel.losses
    calls: list[None] = []

    def stopping(self: TransitionModel, *frames: torch.Tensor) -> dict[str, torch.Tensor]:
        calls.append(None)
        if len(calls) == 17:  # the codebook is in use and the algebraic losses are rising
            os.kill(os.getpid(), signal.SIGINT)
        return losses(self, *frames)

    monkeypatch.setattr(TransitionModel, "losses", stopping)
    _, _, finished = pretrain(config(tmp_path / "b", 24), [moving_square()])
    assert not finished and not (tmp_path / "b" / "model").exists()
    monkeypatch.undo()
    resumed, _, finished = pretrain(config(tmp_path / "b", 24), [moving_square()])
    assert finished
    expected = uninterrupted.state_dict()
    assert all(torch.equal(expected[name], value) for name, value in resumed.state_dict().items())


def test_ranks_share_the_batch_of_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: dict[tuple[int, int], torch.Tensor] = {}

    def catch(model: object, batch_at: object, *_: object) -> SimpleNamespace:
        for rank, ranks in ((0, 1), (0, 2), (1, 2)):
            made[rank, ranks] = batch_at(5, rank, ranks)["triplets"]  # type: ignore[operator]
        return SimpleNamespace(model=model, stopped="interrupted", main=False)

    monkeypatch.setattr("alam_training.commands.pretrain.train", catch)
    pretrain(config(tmp_path, 10), [moving_square()])
    whole = made[0, 1]
    assert whole.shape == (3, 16, 16, 16, 3) and whole.dtype == torch.uint8
    assert torch.equal(whole[:, 0::2], made[0, 2]) and torch.equal(whole[:, 1::2], made[1, 2])


def test_half_precision_trains(tmp_path: Path) -> None:
    _, figures, finished = pretrain(config(tmp_path, 9, mixed_precision="bf16"), [moving_square()])
    assert finished and np.isfinite(list(figures.values())).all()


def script(monkeypatch: pytest.MonkeyPatch, *args: str) -> int:
    """Exit code of the script with these arguments, in this process."""
    monkeypatch.setattr(sys, "argv", ["training/pretrain.py", *args])
    with pytest.raises(SystemExit) as stopped:
        run_main(main)
    return int(stopped.value.code or 0)


def test_script_without_arguments_says_how_to_start(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script(monkeypatch) == 0
    assert "--config training/configs/pretrain_piper.yaml" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--run", "x"], "--data"),
        (["--data", "nowhere/at/all"], "nowhere/at/all"),
        (["--gaps.kind", "random"], "gaps.kind is 'random': choose one of uniform, fixed"),
        (["--loop.stepz", "3"], "stepz"),
        (["--batch", "many"], "many"),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
        (["--config", "LICENSE"], "config"),
        (["--config", "{not_yaml}"], "flow sequence"),
        (["--config", "{not_text}"], "utf-8"),
    ],
)
def test_script_refuses_in_one_line(
    args: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    files = {"not_yaml": b"batch: [1", "not_text": b"\xff\xfe"}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    assert (
        script(
            monkeypatch, *(arg.format(**{name: tmp_path / name for name in files}) for arg in args)
        )
        == 2
    )
    error = capsys.readouterr().err
    assert words in error and error.startswith("error: ") and error.count("\n") == 1


def test_preset_is_read() -> None:
    read = parse_args(
        PretrainConfig,
        "",
        ["--config", str(ROOT / "training/configs/pretrain_piper.yaml"), "--batch", "3"],
    )
    assert (
        read.data == "data/piper_place"
        and read.model.losses.algebra == "whitened"
        and read.batch == 3
    )


def test_a_data_set_without_views_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with LeRobotWriter(tmp_path / "set", 10.0, {}, ["x"], ["u"], "toy") as writer:
        writer.add_episode({}, np.zeros((4, 1)), np.zeros((4, 1)), "go")
    assert script(monkeypatch, "--data", str(tmp_path / "set")) == 2
    assert "no camera view" in capsys.readouterr().err


@pytest.mark.parametrize(
    "file",
    [
        f
        for f in sorted((ROOT / "training/configs/models").glob("*.yaml"))
        if "policy" not in f.name
    ],
    ids=lambda file: file.stem,
)
def test_a_preset_is_complete_also_over_another_one(file):
    """``--model`` on the command line is laid over the preset that a configuration names."""
    networks = {"encoder", "decoder", "codebook_size", "warmup_steps", "ramp_steps", "image_size"}
    assert networks <= yaml.safe_load(file.read_text()).keys()
