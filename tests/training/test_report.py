"""The report shows every value of every result file, and names a file that it cannot read."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from alam_core.errors import UserError
from alam_core.results import write_result
from alam_training.commands.report import rows
from alam_training.report.policies import draw_success
from alam_training.report.stage2 import interventions

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "training" / "report.py"


def report(folder: Path, out: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), "--results", str(folder), "--out", str(out)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_results_page_is_up_to_date(tmp_path: Path) -> None:
    (tmp_path / "figures").symlink_to(ROOT / "docs" / "figures")
    assert report(ROOT / "results", tmp_path / "results.md").returncode == 0
    assert (tmp_path / "results.md").read_text() == (ROOT / "docs" / "results.md").read_text()


def test_every_value_is_shown(tmp_path: Path) -> None:
    write_result(
        "piper_place",
        {"alam": {"episodes": 50, "successes": 41}},
        [1000, 1049],
        tmp_path,
        command="python x.py",
    )
    write_result(
        "piper_place",
        {"none": {"episodes": 50, "successes": 39, "why": None}},
        [1000, 1049],
        tmp_path,
        command="python y.py",
    )
    out = tmp_path / "docs" / "results.md"
    assert report(tmp_path, out).returncode == 0
    text = out.read_text()
    assert "**82 %** (41 of 50)" in text  # kept beside the later key
    assert "**78 %** (39 of 50)" in text
    assert (
        "```\npython x.py\npython y.py\n```" in text
        and "seeds 1000 to 1049" in text
        and "not measured" in text
    )


@pytest.mark.parametrize(
    "content", [json.dumps({"name": "demo"}), "[1]", "<<<<<<<", '{"machine": 3}']
)
def test_a_broken_file_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "demo.json").write_text(content)
    with pytest.raises(UserError, match=r"demo.json' is no result file.*\"successes\": 3"):
        write_result("demo", {"successes": 3}, [], tmp_path)
    assert (tmp_path / "demo.json").read_text() == content
    done = report(tmp_path, tmp_path / "results.md")
    assert done.returncode == 2
    assert "demo.json' is not a result file" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "results.md").exists()


@pytest.mark.parametrize("folder", ["x" * 300, "a file"])
def test_a_measurement_that_cannot_be_written_is_shown(tmp_path: Path, folder: str) -> None:
    (tmp_path / "a file").touch()
    with pytest.raises(UserError, match=r'measured now: {"successes": 3}$'):
        write_result("demo", {"successes": 3}, [], tmp_path / folder)


def stage1_method(error: float, psnr: float, seeds: list[int]) -> dict[str, object]:
    """Metrics as training/probe.py writes them, some of them not measured."""
    table = {str(t): error * t for t in range(1, 6)}
    tables = {
        name: table
        for name in (
            "add",
            "rev",
            "add_rel",
            "rev_rel",
            "add_centred",
            "rev_centred",
            "ssim",
            "ssim_cum",
        )
    }
    spread = {f"{name}_std": None for name in tables}
    numbers = {
        "psnr_k": psnr,
        "psnr_k_std": 0.25,
        "psnr_5k": 20.0,
        "psnr_cum_5k": psnr - 5,
        "psnr_k_shuffled": 22.0,
        "effective_dims": 9.0,
    }
    return {
        "seeds": seeds,
        **tables,
        **spread,
        **numbers,
        "lpips": None,
        "lpips_cum": None,
        "why": "no weights",
    }


def test_probes_are_shown_next_to_the_paper_with_targets_and_pictures(tmp_path: Path) -> None:
    world = {
        "lam": stage1_method(0.5, 25.0, [0, 1, 2]),
        "alam": stage1_method(0.01, 26.5, [0]),
        "copy_psnr_k": 21.5,
        "ratio": {"add_5k": 50.0, "rev_5k": 24.0, "rev_k": 90.0},
        "ratio_centred": {"add_5k": 12.0, "rev_5k": 11.0, "rev_k": 10.0},
        "ratios_of_others": {
            "potential": {
                "ratio": {"add_5k": 3e7, "rev_5k": None, "rev_k": None},
                "ratio_centred": {},
            }
        },
    }
    write_result(
        "transition_probes",
        {"north": world, "gap": 5, "trained_horizon": 2.0},
        [0, 1, 2],
        tmp_path,
        command="python p.py",
    )
    write_result(
        "transition_ablation",
        {"no_rev": stage1_method(0.2, 24.0, [0]), "worlds": {"north": {}}},
        [0],
        tmp_path,
        command="p",
    )
    write_result(
        "data_throughput",
        {"ours_items_s": 90.0, "lerobot_items_s": None, "why": "not here"},
        [0],
        tmp_path,
        command="d",
    )
    figures = tmp_path / "docs" / "figures"
    figures.mkdir(parents=True)
    (figures / "transition_algebra_north.png").touch()
    (figures / "transfer_alam.webp").touch()
    out = tmp_path / "docs" / "results.md"
    done = report(tmp_path, out)
    assert done.returncode == 0, done.stderr
    text = out.read_text()
    assert (
        "| PSNR at k (dB) | 25 ± 0.25 | 26.5 ± 0.25 | 26.74 | 28.87 |" in text
        and "LAM (3 seeds)" in text
        and "ALAM (1 seed)" in text
    )
    assert "| LPIPS at k | not measured | not measured | 0.08 | 0.08 |" in text
    assert (
        "| LAM / ALAM, additivity at 5k | 50 | 46 | yes |" in text
        and "| LAM / ALAM, reversal at 5k | 24 | 25 | **no** |" in text
    )
    assert (
        "| additivity at 5k, LAM over | 50 | exact | 46 |" in text
        and "| additivity at 5k, mean-subtracted LAM over | 12 |" in text
    )
    assert "figures/transition_algebra_north.png" in text and "figures/transfer_alam.webp" in text
    assert "transition_reconstruction_north" not in text  # no such picture
    assert "| paper: MetaWorld success with these latents (%) | 63.6 |" in text
    assert "The target is a ratio of at least 3" in text and "not measured" in text


def test_policies_are_shown_next_to_the_paper_by_training_and_task(tmp_path: Path) -> None:
    def played(successes: int, policies: dict[str, int]) -> dict[str, object]:
        per_task = {
            "push": {"episodes": 100, "successes": successes - 20},
            "sweep": {"episodes": 100, "successes": 20},
        }
        figures = {
            "episodes": 200,
            "successes": successes,
            "success": successes / 200,
            "ci95": [0.4, 0.6],
            "per_task": per_task,
        }
        return figures | ({"per_policy": policies} if policies else {})

    both = {"runs/a": 60, "runs/b": 40}
    write_result(
        "generation_ablation",
        {"none": played(80, {}), "alam_joint": played(100, both)},
        [1000],
        tmp_path,
        command="x",
    )
    write_result("generation_ablation", {"own_step": played(90, {})}, [1000], tmp_path, command="y")
    write_result(
        "generation_ablation",
        {"default": played(100, both)},
        [1000],
        tmp_path,
        command="z",
        group="interventions",
    )
    pictures = tmp_path / "figures"
    pictures.mkdir()
    drawn = draw_success(tmp_path / "generation_ablation.json", pictures)
    assert [path.name for path in drawn] == ["generation_success.png"] and 10_000 < drawn[
        0
    ].stat().st_size < 200_000
    assert report(tmp_path, tmp_path / "results.md").returncode == 0
    text = (tmp_path / "results.md").read_text()
    assert "![Success of each method and training](figures/generation_success.png)" in text
    assert (
        "| ALAM, joint | **50.0%** (40.0% to 60.0%) | 200 | 60%, 40% | 80% | 20% | 85.0 |" in text
    )
    assert "| no latents | **40.0%** (40.0% to 60.0%) | 200 | one | 60% | 20% | 47.9 |" in text
    assert "| own step | **45.0%**" in text and "| as trained | **50.0%**" in text
    assert "Interventions during evaluation, on ALAM, joint (" in text
    write_result(
        "generation_ablation",
        {"freeze": played(70, both)},
        [1000],
        tmp_path,
        command="w",
        group="interventions_again",
    )
    ((_, first), (_, again)) = interventions(
        json.loads((tmp_path / "generation_ablation.json").read_text())["values"]
    )
    assert (
        set(first) == {"default"}
        and again["default"]["successes"] == 100
        and again["freeze"]["successes"] == 70
    )


def test_a_picture_needs_a_result(tmp_path: Path) -> None:
    write_result("generation_ablation", {"none": {"success": 0.5}}, [0], tmp_path, command="x")
    with pytest.raises(
        UserError, match=r"generation_ablation.json' is not a result of training/evaluate.py"
    ):
        draw_success(tmp_path / "generation_ablation.json", tmp_path)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (2827.8771564, "2828"),
        (1.26134, "1.261"),
        (3135421264, "3135421264"),
        (97988.6, "97989"),
        (True, "True"),
    ],
)
def test_numbers_are_rounded_for_reading(value: float, text: str) -> None:
    assert rows({"a": value}) == [("a", text)] and rows([value, value]) == [("", f"{text}, {text}")]


def test_the_arm_controllers_faults_are_a_table(tmp_path: Path) -> None:
    held = {"p50": 318.6, "max": 354.2}
    row = {"n": 20, "hold_ms": held, "overshoot_rad": 0.1203, "recovered": 19, "limits_broken": 0}
    refused = row | {"hold_ms": None, "overshoot_rad": None, "why": "the chunk is refused"}
    values = {"faults": {"estop": row, "start_jump": refused}, "limits_broken": 0}
    fuzz = {"messages": 500, "limits_broken": 0, "crashes": 0, "failed": []}
    write_result("controller_faults", values | {"fuzz": fuzz}, [0], tmp_path, command="c")
    loop = {"minutes": 30.0, "missed": 12, "jitter_ms": {"p50": 0.01}}
    write_result("controller_loop", loop, [1000, 1100], tmp_path, command="l")
    out = tmp_path / "results.md"
    assert report(tmp_path, out).returncode == 0
    text = out.read_text()
    assert "| estop | 20 | 319 | 354 | 0.120 | 19 of 20 | 0 |" in text
    assert "| start_jump | 20 | the chunk is refused |  |  | 19 of 20 | 0 |" in text
    assert "| fuzz.messages | 500 |" in text and "| limits_broken | 0 |" in text
    assert "gaps of more than 20 ms" in text and "| jitter_ms.p50 | 0.01 |" in text


def test_the_experts_of_the_suites_are_one_table(tmp_path: Path) -> None:
    def counts(*successes: int) -> dict:
        return {"successes": sum(successes), "episodes": 3 * len(successes), "ci95": [0.25, 0.75]}

    def suite(name: str, *successes: int) -> dict:
        tasks = {f"{name}-{number}": counts(won) for number, won in enumerate(successes)}
        return counts(*successes) | {"per_task": tasks, "mean_steps": 99.5}

    experts = {"goal": suite("goal", 3, 1), "long": suite("long", 0)}
    write_result("libero", {"experts": experts}, [100], tmp_path, command="python x.py")
    out = tmp_path / "docs" / "results.md"
    assert report(tmp_path, out).returncode == 0
    text = out.read_text()
    for row in ("| 0 | 3 of 3 | 0 of 3 |", "| 1 | 1 of 3 |  |", "**4 of 6** | **0 of 3**"):
        assert row in text, text
    assert "25% to 75%" in text and "99.5" in text
