"""Pretraining on mixtures of data sets and video folders, some of them broken, decoded
before or while training.
"""

import json
import os
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from video_fixtures import write_video

from alam_core.config import from_dict, parse_args, to_dict
from alam_core.data.lerobot.writer import LeRobotWriter
from alam_core.data.mixture import SourceConfig, open_sources
from alam_core.errors import UserError, run_main
from alam_core.latent_action import TransitionConfig, TransitionModel
from alam_core.latent_action.triplets import GapConfig
from alam_training.commands.pretrain import main, pretrain
from alam_training.loop.config import LoopConfig, OptimConfig
from alam_training.splits import split_episodes
from alam_training.stage1.config import PretrainConfig

ROOT = Path(__file__).resolve().parents[2]
TINY = {
    "image_size": 16,
    "patch_size": 8,
    "width": 16,
    "heads": 2,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "latent_tokens": 2,
    "latent_dim": 4,
    "codebook_size": 8,
    "warmup_steps": 4,
}
TABLE_7 = {  # name -> stride, weight
    "fractal20220817_data": (5, 150),
    "bridge": (5, 50),
    "taco_play": (5, 5),
    "jaco_play": (5, 20),
    "berkeley_cable_routing": (5, 20),
    "roboturk": (5, 10),
    "nyu_door_opening_surprising_effectiveness": (5, 5),
    "viola": (5, 3),
    "berkeley_autolab_ur5": (5, 5),
    "toto": (5, 5),
    "calvin_task_ABC_D": (10, 200),
}


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set ``robot`` with two views and a folder ``films``, twenty episodes each."""
    tmp_path = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    with LeRobotWriter(
        tmp_path / "robot", 10, {"top": (24, 24), "side": (24, 24)}, ["x"], ["u"], "toy"
    ) as writer:
        for _ in range(20):
            images = {
                view: rng.integers(0, 256, (15, 24, 24, 3), np.uint8) for view in ("top", "side")
            }
            writer.add_episode(images, np.zeros((15, 1)), np.zeros((15, 1)), "go")
    for e in range(20):
        write_video(tmp_path / f"films/{e:02d}.mp4", 25, e)
    return tmp_path


@pytest.fixture
def root(originals: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(originals, tmp_path / "data"))


def config(root: Path, run: str = "run", **fields: object) -> PretrainConfig:
    values = {
        "data": [
            SourceConfig(str(root / "robot"), 3.0),
            SourceConfig(str(root / "films"), 1.0, stride=2),
        ],
        "run": str(root / run),
        "held_out": 0.1,
        "batch": 6,
        "gaps": GapConfig("uniform", 3),
        "probe_gap": 2,
        "workers": 0,
        "model": TransitionConfig(**TINY),  # type: ignore[arg-type]
        "loop": LoopConfig(steps=6, cpu=True, log_every=2, optim=OptimConfig(warmup_steps=2)),
    }
    return PretrainConfig(**{**values, **fields})  # type: ignore[arg-type]


def run(config: PretrainConfig) -> tuple[TransitionModel, dict[str, float], bool]:
    return pretrain(config, open_sources(config.sources, config.model.image_size, config.cache))


def test_a_mixture_trains_and_is_probed_source_by_source(root: Path) -> None:
    model, figures, finished = run(config(root))
    assert finished and {name.split("/")[0] for name in figures} == {"robot", "films"}
    assert (
        np.isfinite(figures["robot/psnr_k"]) and figures["robot/psnr_k"] != figures["films/psnr_k"]
    )
    report = json.loads((root / "run/data_report.json").read_text())
    assert [
        (row["name"], row["share"], row["stride"], row["held_out"]) for row in report["sources"]
    ] == [
        ("robot", 0.75, 1, 2),
        ("films", 0.25, 2, 2),
    ]
    card = (root / "run/model/README.md").read_text()
    assert (
        "| robot | top, side | 75.0% | 1 | 18 | 2 | 0 |" in card
        and "| films | video | 25.0% | 2 | 18 | 2 | 0 |" in card
    )
    onward, _, _ = run(config(root, "lazy", cache=False))  # the same frames, decoded while training
    assert all(
        torch.equal(value, onward.state_dict()[name]) for name, value in model.state_dict().items()
    )


def test_a_run_that_decodes_on_demand_resumes_exactly_with_another_number_of_workers(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _, _ = run(config(root, "a", cache=False))
    losses, calls = TransitionModel.losses, []

    def stopping(self: TransitionModel, *frames: torch.Tensor) -> dict[str, torch.Tensor]:
        calls.append(None)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return losses(self, *frames)

    monkeypatch.setattr(TransitionModel, "losses", stopping)
    assert not run(config(root, "b", cache=False))[2]
    monkeypatch.undo()
    resumed, _, finished = run(config(root, "b", cache=False, workers=1))
    assert finished
    assert all(
        torch.equal(value, resumed.state_dict()[name]) for name, value in whole.state_dict().items()
    )


def test_a_run_is_not_resumed_if_the_held_out_set_would_change(root: Path) -> None:
    run(config(root))
    write_video(root / "films/20.mp4", 25)
    with pytest.raises(UserError, match=r"films' had 20 episodes .* has 21 now"):
        run(config(root, loop=LoopConfig(steps=8, cpu=True)))
    assert run(config(root, loop=LoopConfig(steps=2, cpu=True, resume=False)))[2]


def test_sources_that_cannot_be_split_or_probed_are_named(root: Path) -> None:
    with pytest.raises(
        UserError,
        match=r"films: no held-out episode has the 29 frames that metrics at --probe_gap 7",
    ):
        run(config(root, probe_gap=7))
    held = split_episodes(20, 0.1, np.random.default_rng([0, 20]))[1]
    for e in held:
        (root / f"films/{e:02d}.mp4").write_bytes(b"torn")
    with pytest.raises(UserError, match=r"films: all 2 held-out episodes are broken"):
        run(config(root, max_broken=0.1))
    for path in sorted((root / "films").glob("*.mp4"))[1:]:
        path.unlink()
    with pytest.raises(UserError, match=r"films: 1 episode\(s\) cannot be split"):
        run(config(root))


@pytest.mark.parametrize("cache", [True, False])
def test_broken_films_are_left_out_and_named(
    root: Path, cache: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "films/03.mp4").write_bytes(b"torn")
    write_video(root / "films/05.mp4", 4)  # fewer than two strides of two frames
    films = [SourceConfig(str(root / "films"), stride=2)]
    with pytest.raises(
        UserError, match=r"1 broken and 1 too short of 20 .*films.*03\.mp4.*--exclude .\[3,5\]"
    ):
        run(config(root, data=films, cache=cache))
    _, _, finished = run(config(root, data=films, cache=cache, max_broken=0.1))
    assert finished and "03.mp4" in capsys.readouterr().out
    (row,) = json.loads((root / "run/data_report.json").read_text())["sources"]
    assert [fault["episode"] for fault in row["broken"]] == [3] and row["too_short"] == [5]
    assert (
        "| films | video | 100.0% | 2 | 18 | 2 | 2 |" in (root / "run/model/README.md").read_text()
    )


def test_a_broken_film_is_told_once(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "films/03.mp4").write_bytes(b"torn")
    settings = root / "run.yaml"
    settings.write_text(yaml.safe_dump(to_dict(config(root, data=str(root / "films")))))
    monkeypatch.setattr(sys, "argv", ["pretrain", "--config", str(settings)])
    assert main() == 0
    told = capsys.readouterr()
    assert len([line for line in (told.out + told.err).splitlines() if "03.mp4" in line]) == 1


def test_excluded_episodes_are_neither_trained_on_nor_counted_as_broken(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for e in (3, 5, 6):
        (root / f"films/{e:02d}.mp4").write_bytes(b"torn")
    robot = str(root / "robot")
    own = config(root, data=str(root / "films"), exclude=[3, 5], cache=False)
    assert run(own)[2]
    assert "1 broken and left out" in (told := capsys.readouterr().out)
    assert "excluded: episodes 3, 5" in told
    (row,) = json.loads((root / "run/data_report.json").read_text())["sources"]
    assert row["excluded"] == [3, 5] and [fault["episode"] for fault in row["broken"]] == [6]
    for wrong, words in (
        ({"data": robot, "exclude": [20]}, "robot' has no episode 20; it has the episodes 0 to 19"),
        ({"data": [SourceConfig(robot)], "exclude": [2]}, "give each its own images and exclude"),
        ({"data": str(root / "films"), "images": {"a": "b"}}, "has only the view 'video'"),
    ):
        with pytest.raises(UserError, match=words):
            run(config(root, **wrong))


def test_a_film_that_breaks_while_training_is_replaced_and_counted(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = config(
        root, data=[SourceConfig(str(root / "films"))], cache=False, batch=40, max_broken=0.2
    )
    sources = open_sources(own.sources, 16, False)
    for e in (4, 9):
        (root / f"films/{e:02d}.mp4").unlink()
    _, _, finished = pretrain(own, sources)
    assert finished and "2 broken" in capsys.readouterr().out
    (row,) = json.loads((root / "run/data_report.json").read_text())["sources"]
    assert [fault["episode"] for fault in row["broken"]] == [4, 9] and row["triplets_replaced"] > 2
    with pytest.raises(UserError, match="--max_broken"):
        pretrain(
            config(root, "strict", data=[SourceConfig(str(root / "films"))], cache=False, batch=40),
            sources,
        )


def test_the_mixture_preset_is_table_7() -> None:
    read = parse_args(
        PretrainConfig, "", ["--config", str(ROOT / "training/configs/mixture_oxe.yaml")]
    )
    assert {
        Path(source.path).name: (source.stride, source.weight) for source in read.sources
    } == TABLE_7
    views = {Path(source.path).name: source.views for source in read.sources}
    assert (
        views["taco_play"] == ["rgb_static"]
        and views["roboturk"] == ["front_rgb"]
        and views["viola"] == ["agentview_rgb"]
    )
    assert read.gaps == GapConfig("uniform", 16) and read.model.image_size == 200
    assert from_dict(PretrainConfig, to_dict(read)) == read


def test_sources_and_model_can_be_given_in_files_and_flags(tmp_path: Path) -> None:
    (tmp_path / "model.yaml").write_text(yaml.safe_dump(TINY))
    (tmp_path / "run.yaml").write_text(
        yaml.safe_dump(
            {"data": [{"path": "films", "stride": 3}], "model": "model.yaml", "views": ["video"]}
        )
    )
    read = parse_args(
        PretrainConfig,
        "",
        ["--config", str(tmp_path / "run.yaml"), "--cache", "2.5", "--model.width", "32"],
    )
    assert read.sources == [SourceConfig("films", stride=3, views=["video"])] and read.cache == 2.5
    assert (read.model.patch_size, read.model.width) == (8, 32)
    assert parse_args(PretrainConfig, "", ["--data", "a/b", "--cache", "false"]).sources == [
        SourceConfig("a/b")
    ]
    worlds = parse_args(
        PretrainConfig, "", ["--config", str(ROOT / "training/configs/pretrain_worlds.yaml")]
    )
    assert [source.weight for source in worlds.sources] == [1, 1] and worlds.model.image_size == 64


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("data: [{path: a, wieght: 2}]", "wieght"),
        ("data: [{path: a, weight: 0}]", "weight of 'a' is 0"),
        ("data: [{path: a, stride: 0}]", "stride of 'a' is 0"),
        ("data: [{path: nowhere}]", "'nowhere' is not a folder"),
        ("data: []", "no data"),
        ("{data: a, max_broken: 3}", "max_broken must be between 0 and 1"),
    ],
)
def test_bad_mixtures_are_refused_in_one_line(
    text: str,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "run.yaml").write_text(text)
    monkeypatch.setattr(
        sys, "argv", ["training/pretrain.py", "--config", str(tmp_path / "run.yaml")]
    )
    with pytest.raises(SystemExit) as stopped:
        run_main(main)
    error = capsys.readouterr().err
    assert (
        stopped.value.code == 2
        and words in error
        and error.startswith("error: ")
        and error.count("\n") == 1
    )
