"""The ``alam`` command without ROS: it offers every training command, and the
recorded command repeats the run.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import alam_core
from alam_cli.main import GROUPS, ROS_COMMANDS, run_training
from alam_core.command_line import command_line

ROOT = Path(__file__).resolve().parents[2]
PATHS = [ROOT, ROOT / "training", ROOT / "ros2_ws/src/alam_cli"]


def alam(*arguments: str, root: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run ``alam`` in a shell in which no ROS workspace is sourced."""
    paths = [root / path.relative_to(ROOT) for path in PATHS]
    env = {key: value for key, value in os.environ.items() if key != "AMENT_PREFIX_PATH"}
    return subprocess.run(
        [sys.executable, "-m", "alam_cli", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
        cwd=root,
        env=env
        | {
            "PYTHONPATH": ":".join(map(str, paths)),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        },
    )


def test_help_lists_every_command_with_a_line() -> None:
    done = alam("--help")
    assert done.returncode == 0, done.stderr
    listed = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines() if line}
    scripts = {path.stem for path in (ROOT / "training/alam_training/commands").glob("[a-z]*.py")}
    assert scripts == {path.stem for path in (ROOT / "training").glob("*.py")}
    for name in scripts | set(ROS_COMMANDS):
        assert listed.get(name), f"alam --help says nothing about {name}"
    assert {name for group in GROUPS.values() for name in group} == scripts | set(ROS_COMMANDS)


def test_the_alam_command_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from alam_cli.main import make_parser\n"
        "make_parser().format_help()\n"
        "print(sorted({'torch', 'numpy', 'rclpy', 'jsonargparse', 'yaml'} & sys.modules.keys()))"
    )
    env = os.environ | {"PYTHONPATH": ":".join(map(str, PATHS))}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert done.stdout == "[]\n", done.stderr


def test_version_is_the_librarys() -> None:
    assert alam("--version").stdout == f"alam {alam_core.__version__}\n"


@pytest.mark.parametrize(("name", "arguments"), [("pretrain", []), ("report", ["--help"])])
def test_a_command_answers_like_its_script(name: str, arguments: list[str]) -> None:
    env = os.environ | {"PYTHONPATH": ":".join(map(str, PATHS))}
    script = subprocess.run(
        [sys.executable, f"training/{name}.py", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=env,
    )
    done = alam(name, *arguments)
    assert done.returncode == script.returncode == 0, done.stderr
    # Only the program's name differs, and with it how the usage is wrapped.
    said = done.stdout.replace(f"usage: alam {name}", f"usage: {name}.py")
    assert said.split() == script.stdout.split()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["fly"], "invalid choice: 'fly'"),
        (["report", "--resluts", "x"], "resluts"),
    ],
)
def test_mistakes_get_one_line_and_code_2(arguments: list[str], said: str) -> None:
    done = alam(*arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("error: ")


@pytest.fixture
def bare_tree(tmp_path: Path) -> Path:
    """A tree that has the command and what it imports, but no ROS workspace."""
    (tmp_path / "alam_core").mkdir()
    for name in ("__init__", "errors"):
        (tmp_path / f"alam_core/{name}.py").write_text((ROOT / f"alam_core/{name}.py").read_text())
    package = tmp_path / "ros2_ws/src/alam_cli"
    package.mkdir(parents=True)
    (package / "alam_cli").symlink_to(ROOT / "ros2_ws/src/alam_cli/alam_cli")
    return tmp_path


def test_a_ros_command_before_set_up_says_what_to_do(bare_tree: Path) -> None:
    done = alam("echo", "/x", root=bare_tree)
    assert done.returncode == 2
    assert done.stderr == (
        f"error: 'alam echo' needs the ROS workspace, which is not set up: "
        f"run 'make setup' in '{bare_tree}'\n"
    )


def test_a_ros_command_sources_the_workspace_itself(bare_tree: Path) -> None:
    """The tree's setup.bash is sourced once; an unusable workspace is reported then."""
    (bare_tree / "ros2_ws/install").mkdir(parents=True)
    (bare_tree / "ros2_ws/install/setup.bash").touch()
    (bare_tree / "setup.bash").write_text("echo sourced\n")
    done = alam("echo", "a b", "--timeout", "1", root=bare_tree)
    assert done.stdout == "sourced\n"
    assert done.returncode == 2
    assert "the ROS workspace cannot be imported" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("argv", "recorded"),
    [
        (["alam finetune", "--run", "a b"], "alam finetune --run 'a b'"),
        ([str(ROOT / "training/finetune.py"), "--x", "1"], "python training/finetune.py --x 1"),
        (["training/finetune.py", str(ROOT / "data/x")], "python training/finetune.py data/x"),
        (["training/finetune.py", "/elsewhere/x"], "python training/finetune.py /elsewhere/x"),
    ],
)
def test_recorded_command_can_be_typed_again(
    argv: list[str], recorded: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", argv)
    assert command_line() == recorded


def test_a_command_run_by_alam_is_recorded_as_such(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    recorded = []
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/alam", "report"])
    monkeypatch.setattr(
        "alam_training.commands.report.main", lambda: recorded.append(command_line())
    )
    run_training("report", ["--out", "x.md"])
    assert recorded == ["alam report --out x.md"]
