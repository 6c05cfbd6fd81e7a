"""Check data and checkpoints before training: what they are, and what is wrong with them."""

import itertools
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from alam_core.command_line import join_values
from alam_core.config import parse_args
from alam_core.data.checks import FrameSample, Recorded
from alam_core.data.lerobot import Columns, layout
from alam_core.data.raw_images import ChannelOrder
from alam_core.data.video.folder import ENDINGS
from alam_core.errors import UserError
from alam_training.checks.bags import check_bags
from alam_training.checks.checkpoints import Checked, check_checkpoint, check_together
from alam_training.checks.datasets import check_dataset
from alam_training.checks.report import CheckReport
from alam_training.checks.sheet import write_sheet
from alam_training.converters.source import Request, Stamps

INTRODUCTION = """Check data and checkpoints before training. Nothing is changed.

  python training/check.py data/mine
      a LeRobot data set or a folder of videos: numbers, instructions, videos, frames
  python training/check.py bags/first
      a ROS 2 bag, or a folder of bags: topics, and what training/convert.py would read
  python training/check.py runs/mine/policy runs/mine_encoder/model data/mine
      checkpoints and data: each of them, and whether they belong together
  python training/check.py data/mine --thorough true
      decode every frame, not only a few of each view
  python training/check.py --help
      every option

The exit code is 0 if there is no error, 1 if there is one, 2 for a wrong command.
docs/data.md says what each finding means."""

FOREIGN = {".tfrecord": "rlds", ".npz": "calvin", ".hdf5": "libero", ".h5": "libero"}


@dataclass
class CheckConfig:
    """What to check.

    Args:
        paths: data sets, folders of videos, bags, checkpoints, or folders with several checkpoints.
        thorough: decode every frame and read every bag, not only a few.
        sheets: folder for the contact sheets; empty: none.
        json: print the reports as JSON.
        views: of a bag: view -> topic, as in training/convert.py.
        state: feature of a data set that holds the state, or topics of a bag.
        action: feature of a data set that holds the action, or topics of a bag.
        images: of a data set: view -> name of the video feature that holds it; empty: all.
        fps: of a bag: rows per second, as in training/convert.py; 0: 10.
        stamps: of a bag: header or recording, as in training/convert.py.
        channels: of a bag: rgb or bgr, as in training/convert.py.
    """

    paths: list[str] = field(default_factory=list)
    thorough: bool = False
    sheets: str = "runs/check"
    json: bool = False
    views: dict[str, str] = field(default_factory=dict)
    state: str | list[str] = field(default_factory=list)
    action: str | list[str] = field(default_factory=list)
    images: dict[str, str] = field(default_factory=dict)
    fps: float = 0.0
    stamps: Stamps = "header"
    channels: ChannelOrder = ""

    def __post_init__(self) -> None:
        if self.fps < 0:
            raise UserError(f"fps is {self.fps:g}: it must not be negative")

    @property
    def columns(self) -> Columns:
        """The features of a data set that are read."""
        state, action = _as_list(self.state), _as_list(self.action)
        if len(state) > 1 or len(action) > 1:
            raise UserError("a data set has one feature for the state and one for the action")
        return Columns((state or [layout.STATE])[0], (action or [layout.ACTION])[0], self.images)


def _as_list(names: str | list[str]) -> list[str]:
    return [names] if isinstance(names, str) else names


def main() -> int:
    args = sys.argv[1:]
    if not args:
        print(INTRODUCTION)
        return 0
    if not args[0].startswith("-"):
        args = ["--paths", *args]
    config = parse_args(CheckConfig, INTRODUCTION.splitlines()[0], join_values(args, "--paths"))
    if not config.paths:
        raise UserError("nothing to check: give data sets, bags or checkpoints")
    console = Console(stderr=config.json)
    reports = check(config, console)
    if config.json:
        print(json.dumps([report.to_dict() for report in reports], indent=2, ensure_ascii=False))
    else:
        for report in reports:
            report.print(console)
    return 1 if any(report.count("error") for report in reports) else 0


def check(config: CheckConfig, console: Console) -> list[CheckReport]:
    """A report for each path. Raises UserError for a path that does not exist or that is nothing
    this command can check.
    """
    reports: list[CheckReport] = []
    checkpoints: list[Checked] = []
    datasets: dict[str, Recorded] = {}
    names: dict[str, Path] = {}  # of the contact sheets
    kinds = [(path, kind) for given in config.paths for path, kind in _found(Path(given))]
    for path, kind in kinds:
        recorded: Recorded | None = None
        samples: list[FrameSample] = []
        if kind == "checkpoint":
            report, checked = check_checkpoint(path)
            checkpoints += [checked] if checked else []
        elif kind == "bag":
            request = Request(
                path,
                config.views,
                _as_list(config.state),
                _as_list(config.action),
                "",
                0,
                config.fps,
                config.stamps,
                config.channels,
            )
            report, recorded, samples = check_bags(request, config.thorough, console)
        else:
            report, recorded, samples = check_dataset(
                path, config.columns, config.thorough, console
            )
        if recorded and kind == "data":
            datasets[str(path)] = recorded
        if config.sheets:
            name = _unused_name(path.resolve(), names)
            report.sheet = write_sheet(samples, Path(config.sheets) / f"{name}.png")
        reports.append(report)
    for policy in [checkpoint for checkpoint in checkpoints if checkpoint.policy]:
        others = [checkpoint for checkpoint in checkpoints if not checkpoint.policy]
        policy.report.findings += check_together(policy, others, datasets)
    return reports


def _unused_name(path: Path, used: dict[str, Path]) -> str:
    """A name made of the last two parts of a path, or of more if another path has that one; it is
    added to ``used``.
    """
    parts = path.parts[1:]
    names = ("_".join(parts[-count:]) for count in range(min(2, len(parts)), len(parts) + 1))
    numbered = (f"{'_'.join(parts)}_{number}" for number in itertools.count(2))
    return next(
        name for name in itertools.chain(names, numbered) if used.setdefault(name, path) == path
    )


def _found(path: Path) -> list[tuple[Path, str]]:
    """What there is to check at ``path``, each with its kind: "data", "bag" or "checkpoint". Raises
    UserError if there is nothing.
    """
    if not path.exists():
        raise UserError(f"'{path}' does not exist: give a data set, a bag or a checkpoint")
    if _is_checkpoint(path):
        return [(path, "checkpoint")]
    if (path / "meta").is_dir():
        return [(path, "data")]
    inside = [] if path.is_file() else sorted(path.iterdir())
    if models := [child for child in inside if _is_checkpoint(child)]:
        return [(model, "checkpoint") for model in models]
    if path.suffix in (".mcap", ".db3") or (path / "metadata.yaml").is_file():
        return [(path, "bag")]
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    if any(file.suffix in (".mcap", ".db3") for file in files):
        return [(path, "bag")]
    for file in files:
        ending = ".tfrecord" if ".tfrecord" in file.name else file.suffix
        if ending in FOREIGN:
            source = FOREIGN[ending]
            raise UserError(
                f"'{path}' is in a format that is converted first: alam convert --source {source} "
                f"--input '{path}' --output data/{path.stem}; then check data/{path.stem}"
            )
    if path.is_file():
        raise UserError(f"'{path}' is a file: give the folder of a data set or of videos")
    if not any(file.suffix.lower() in ENDINGS for file in files):
        raise UserError(
            f"'{path}' holds nothing that can be checked: give a LeRobot data set, a folder of "
            "videos, a ROS 2 bag or a checkpoint"
        )
    return [(path, "data")]


def _is_checkpoint(path: Path) -> bool:
    return (path / "config.json").is_file() or (path / "model.safetensors").is_file()
