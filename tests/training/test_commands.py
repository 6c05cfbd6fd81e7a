"""All training commands have one grammar: without arguments they say what to type."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = sorted(path.stem for path in Path(__file__).parents[2].glob("training/*.py"))
WORK_AT_ONCE = {"figures", "report"}  # need no choice: they draw and report what was measured


def test_the_scripts_are_found() -> None:
    assert {"collect", "pretrain", "finetune", "evaluate"} <= set(SCRIPTS)


@pytest.mark.parametrize("name", [name for name in SCRIPTS if name not in WORK_AT_ONCE])
def test_a_command_without_arguments_says_what_to_type(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)  # what it wrongly writes or reads shows
    monkeypatch.setattr("sys.argv", [f"training/{name}.py"])
    assert importlib.import_module(f"alam_training.commands.{name}").main() == 0
    assert f"python training/{name}.py" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["evaluate", "finetune"])
def test_a_script_refuses_an_unknown_option_in_one_line(name: str) -> None:
    command = [sys.executable, f"training/{name}.py", "--nonsense", "1"]
    wrong = subprocess.run(command, capture_output=True, text=True)
    assert wrong.returncode == 2
    assert "nonsense" in wrong.stderr and wrong.stderr.count("\n") == 1
