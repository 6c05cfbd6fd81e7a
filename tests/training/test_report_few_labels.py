"""The table and the picture of the study of few labels."""

import json
from pathlib import Path

import pytest

from alam_core.errors import UserError
from alam_core.results import write_result
from alam_training.report.few_labels import draw_few_labels, few_labels


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


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "few_labels.json").write_text('{"values": {"metaworld": 3}}')
    with pytest.raises(UserError, match="no result of the study of few labels"):
        draw_few_labels(tmp_path / "few_labels.json", tmp_path)
