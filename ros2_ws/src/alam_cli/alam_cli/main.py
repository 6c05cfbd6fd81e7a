"""The command ``alam``, which runs the training commands and the ROS commands.

``alam finetune`` does the same as ``python training/finetune.py``. The commands of the robot need a
shell in which the ROS workspace is sourced; in any other shell ``alam`` starts itself again in a
sourced one. A command is imported only to run it, so that ``alam --help`` is fast.
"""

import argparse
import importlib
import importlib.util
import os
import sys
from pathlib import Path

import alam_core
from alam_cli.parser import Parser
from alam_cli.ros import ROS_COMMANDS
from alam_cli.ros import run as run_sourced
from alam_core.errors import UserError, run_main

TRAINING_COMMANDS = {
    "Data": {
        "collect": "record demonstrations of a world's scripted expert",
        "convert": "convert RLDS, CALVIN, LIBERO or ROS bags to a LeRobot data set",
        "check": "say what is wrong with data or checkpoints before training",
    },
    "Training": {
        "pretrain": "stage 1: learn latent transitions from video",
        "finetune": "stage 2: train a policy on demonstrations",
        "label": "label video with an inverse dynamics model",
        "import_weights": "convert the authors' released weights to a checkpoint",
    },
    "Measuring": {
        "probe": "measure what transition models have learned",
        "evaluate": "measure the success rate of a policy in simulation",
        "benchmark": "measure speed, memory and latency",
        "figures": "draw the figures of the results",
        "report": "write docs/results.md from results/*.json",
    },
}
GROUPS = TRAINING_COMMANDS | {"Robot (ROS 2)": ROS_COMMANDS}


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command's name. The command itself parses the arguments after its name."""
    groups = (
        f"{title}:\n" + "\n".join(f"  {name:<16}{what}" for name, what in commands.items())
        for title, commands in GROUPS.items()
    )
    parser = Parser(
        prog="alam",
        usage="alam COMMAND [--option VALUE ...]",
        description="Learn latent actions from video, train policies, run them on an arm.",
        epilog="\n\n".join(groups) + "\n\n'alam COMMAND --help' lists the options of a command.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"alam {alam_core.__version__}")
    names = [name for commands in GROUPS.values() for name in commands]
    parser.add_argument("command", metavar="COMMAND", choices=names, help=argparse.SUPPRESS)
    return parser


def run_training(name: str, arguments: list[str]) -> int | None:
    """Run ``alam_training.commands.<name>``, which reads its options from ``sys.argv``. Returns its
    exit code, None for 0.
    """
    # sys.argv[0] appears in the help text, and in the command line that results and cards record.
    sys.argv = [f"alam {name}", *arguments]
    return importlib.import_module(f"alam_training.commands.{name}").main()


def run_ros(arguments: list[str]) -> int:
    """Run a ROS command: in this process, or, if the workspace is not sourced, in a shell that
    sources it. Raises UserError if the workspace has not been built.
    """
    if importlib.util.find_spec("alam_bringup") is not None:
        return run_sourced(arguments)
    root = Path(alam_core.__file__).resolve().parents[1]
    setup = root / "setup.bash"
    if not setup.is_file() or not (root / "ros2_ws/install/setup.bash").is_file():
        raise UserError(
            f"'alam {arguments[0]}' needs the ROS workspace, which is not set up: "
            f"run 'make setup' in '{root}'"
        )
    # "python" is that of the sourced shell, which the workspace was built for.
    script = 'source "$0" && exec python -m alam_cli.ros "$@"'
    os.execvp("bash", ["bash", "-c", script, str(setup), *arguments])


def run(arguments: list[str]) -> int | None:
    """Run one command. Returns its exit code, None for 0."""
    name = make_parser().parse_args(arguments[:1]).command
    return run_ros(arguments) if name in ROS_COMMANDS else run_training(name, arguments[1:])


def main() -> None:
    """Entry point of the console script."""
    run_main(lambda: run(sys.argv[1:]))
