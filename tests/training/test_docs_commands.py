"""The documentation's commands that need no ROS: each fits a rule, its options exist, and README's
four commands, made small, train and evaluate a policy.
"""

import importlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from accelerate.commands.launch import launch_command_parser
from docs_commands import ROOT, Command, commands, record

from alam_cli.main import run as run_alam

# What is appended to README's commands to make them small.
SMALL = {
    "collect": ["--episodes", "4", "--workers", "1"],
    "pretrain": ["--loop.steps", "2"],
    "finetune": ["--loop.steps", "2"],
    "evaluate": ["--episodes", "1", "--workers", "1"],
}


def test_bash_splits_the_commands() -> None:
    script = 'for i in 1 2; do python a.py --seed $i "x y"; done # note\nsource setup.bash'
    assert record(script) == [
        ("python", "a.py", "--seed", "1", "x y"),
        ("python", "a.py", "--seed", "2", "x y"),
        ("source", "setup.bash"),
    ]
    for text in ("folder/  what it holds", "if true", "camera -> /alam/observation"):
        with pytest.raises(ValueError, match="no shell"):
            record(text)
    assert Command("page", ("rm", "-r", "runs")).kind == ""


def test_every_command_fits_a_rule() -> None:
    unknown = "\n".join(str(command) for command in commands() if not command.kind)
    assert not unknown, f"give these a rule in tests/docs_commands.py, or mend them:\n{unknown}"


class Parsed(Exception):
    """Raised when a command has parsed its options, instead of starting its work."""


def name_and_options(words: Sequence[str]) -> tuple[str, list[str]]:
    """The name of a training command and its options, however it is started."""
    if words[0] == "accelerate":
        launch = launch_command_parser().parse_args(list(words[2:]))
        words = ["python", launch.training_script, *launch.training_script_args]
    return Path(words[1]).stem, list(words[2:])


@pytest.mark.parametrize("command", commands("training"), ids=str)
def test_the_options_of_a_training_command_exist(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, options = name_and_options(command.words)
    module: Any = importlib.import_module(f"alam_training.commands.{name}")
    parse = module.parse_args

    def only_parse(*args: Any) -> None:
        parse(*args)
        raise Parsed

    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(module, "parse_args", only_parse)
    monkeypatch.setattr("sys.argv", [f"training/{name}.py", *options])
    with pytest.raises(SystemExit if "--help" in options else Parsed):
        module.main()


@pytest.mark.parametrize("command", commands("development"), ids=str)
def test_what_a_development_command_names_exists(command: Command) -> None:
    program, *words = command.words
    if program == "make":
        targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert set(words) <= set(targets)
        return
    assert (ROOT / words[0]).exists()
    if "-k" in words:
        assert list((ROOT / words[0]).glob(f"test_*{words[words.index('-k') + 1]}*.py"))


@pytest.mark.parametrize("command", commands("cluster"), ids=str)
def test_the_options_of_a_ray_command_exist(command: Command) -> None:
    _, name, *options = command.words
    scripts: Any = pytest.importorskip("ray.scripts.scripts")
    scripts.cli.commands[name].make_context(name, options)  # raises what the command would


@pytest.mark.slow
def test_readme_trains_and_evaluates_a_policy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "training").symlink_to(ROOT / "training")
    monkeypatch.chdir(tmp_path)
    printed = [command.words for command in commands("training") if command.page == "README.md"]
    assert [name for _, name, *_ in printed] == list(SMALL)
    for _, name, *options in printed:
        assert run_alam([name, *options, *SMALL[name]]) in (None, 0), name
    assert "success" in capsys.readouterr().out
