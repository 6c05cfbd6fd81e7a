"""The table and the picture of the study of few labels."""

import json
from pathlib import Path

import pytest

from alam_core.errors import UserError
from alam_core.results import write_result
from alam_training.report.few_labels import draw_few_labels, few_labels
from alam_training.report.probe_success import draw_success_by_probe


def arm(successes: int, trainings: list[int]) -> dict:
    share = successes / 300
    return {
        "success": share,
        "ci95": [share - 0.05, share + 0.05],
        "episodes": 300,
        "per_training": trainings,
    }


def test_results_of_several_commands_become_one_table_and_a_picture(tmp_path: Path) -> None:
    for key, n, wins in (("none", 10, 90), ("none", 100, 200), ("keypoints_video", 10, 150)):
        values = {str(n): arm(wins, [wins // 2, wins // 2])}
        write_result(
            "few_labels", values, [2000, 2149], tmp_path, f"{key} {n}", group=f"metaworld/{key}"
        )
    found = json.loads((tmp_path / "few_labels.json").read_text())
    assert found["command"] == "none 10 && none 100 && keypoints_video 10"
    assert set(found["values"]["metaworld"]["none"]) == {"10", "100"}
    (picture,) = draw_few_labels(tmp_path / "few_labels.json", tmp_path)
    assert picture.stat().st_size > 5000
    text = few_labels(found["values"], tmp_path)
    assert "| keypoints + video | **50%** (45% to 55%), 300 episodes (75, 75) |  |" in text
    assert text.index("no latents") < text.index("keypoints")
    assert f"![Success by number of labels in metaworld](figures/{picture.name})" in text


def test_success_is_drawn_against_the_action_probe_of_the_same_world(tmp_path: Path) -> None:
    file = tmp_path / "few_labels.json"
    for key, wins in (("lam_video", 90), ("alam_video", 120), ("keypoints", 130)):
        write_result("few_labels", {"10": arm(wins, [wins])}, [2000], tmp_path, group=f"five/{key}")
    assert draw_success_by_probe(file, tmp_path) == []  # nothing was probed
    probed = {key: {"action_r2": {"10": r2}} for key, r2 in (("lam", 0.7), ("alam", 0.8))}
    probed["keypoints"] = {"action_r2": {"10": 0.9}}
    (tmp_path / "transition_probes.json").write_text(json.dumps({"values": {"five": probed}}))
    assert draw_success_by_probe(file, tmp_path) == []  # two points: keypoints saw no video
    values = {"10": arm(150, [150])}
    write_result("few_labels", values, [2000], tmp_path, group="five/keypoints_video")
    (picture,) = draw_success_by_probe(file, tmp_path)
    assert picture.stat().st_size > 5000
    text = few_labels(json.loads(file.read_text())["values"], tmp_path)
    assert "![Success by action probe in five](figures/action_probe_five.png)" in text
    file.write_text('{"values": {"five": 3}}')
    with pytest.raises(UserError, match="no such result"):
        draw_success_by_probe(file, tmp_path)


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "few_labels.json").write_text('{"values": {"metaworld": 3}}')
    with pytest.raises(UserError, match="no result of the study of few labels"):
        draw_few_labels(tmp_path / "few_labels.json", tmp_path)
