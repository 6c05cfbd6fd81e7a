"""The report shows every figure of every result file, and says what is wrong with one it cannot read."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from alam_core.errors import UserError
from alam_core.results import write_result

SCRIPT = Path(__file__).parents[2] / "training" / "report.py"


def report(folder: Path, out: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), "--results", str(folder), "--out", str(out)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_every_figure_is_shown(tmp_path: Path) -> None:
    write_result("piper_place", {"alam": {"episodes": 50, "successes": 41}}, [1000, 1049], tmp_path, command="python x.py")
    write_result("piper_place", {"none": {"episodes": 50, "successes": 39, "why": None}}, [1000, 1049], tmp_path, command="python y.py")
    out = tmp_path / "docs" / "results.md"
    assert report(tmp_path, out).returncode == 0
    text = out.read_text()
    assert "**82 %** (41 of 50)" in text  # kept beside the later key
    assert "**78 %** (39 of 50)" in text
    assert "python x.py && python y.py" in text and "seeds 1000 to 1049" in text and "not measured" in text


@pytest.mark.parametrize("content", [json.dumps({"name": "demo"}), "[1]", "<<<<<<<", '{"machine": 3}'])
def test_a_broken_file_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "demo.json").write_text(content)
    with pytest.raises(UserError, match=r"demo.json' is no result file.*\"successes\": 3"):
        write_result("demo", {"successes": 3}, [], tmp_path)
    assert (tmp_path / "demo.json").read_text() == content
    done = report(tmp_path, tmp_path / "results.md")
    assert done.returncode == 2
    assert "demo.json' is no result file" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "results.md").exists()
