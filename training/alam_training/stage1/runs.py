"""Run folders of pretraining: the method and seed of each, and how it was trained."""

import dataclasses
import json
import re
from pathlib import Path

from safetensors import SafetensorError, safe_open

from alam_core.config import from_dict
from alam_core.errors import UserError
from alam_training.loop.state import STATE_FILE
from alam_training.methods import place
from alam_training.stage1.config import PretrainConfig


def find_runs(folders: list[str]) -> dict[Path, tuple[str, int]]:
    """Run folders that contain a model -> (method, seed), in the order of tables.

    folders: run folders, or folders of run folders. A folder named <method>_s<seed> gives both;
    any other name counts as a method, with the seed of the run's settings. Raises UserError if
    there is no run, or if two runs have the same method and seed.
    """
    if not folders:
        raise UserError(
            "no model: give run folders of training/pretrain.py with --models FOLDER ..."
        )
    runs: dict[Path, tuple[str, int]] = {}
    for folder in map(Path, folders):
        found = (
            [folder]
            if (folder / "model").is_dir()
            else sorted(path.parent for path in folder.glob("*/model") if path.is_dir())
        )
        if not found:
            raise UserError(
                f"'{folder}' contains no trained model: give a finished run of "
                "training/pretrain.py, which has one in model/"
            )
        for run in found:
            name = re.fullmatch(r"(.+)_s(\d+)", run.name)
            kind = (name[1], int(name[2])) if name else (run.name, run_config(run).loop.seed)
            others = (other for other, of in runs.items() if of == kind and other != run)
            twin = next(others, None)
            if twin is not None:
                raise UserError(
                    f"'{twin}' and '{run}' are both {kind[0]}, seed {kind[1]}: give only "
                    "one of them, or rename one"
                )
            runs[run] = kind
    return dict(sorted(runs.items(), key=lambda item: (place(item[1][0]), item[1])))


def run_config(run: Path) -> PretrainConfig:
    """The settings a run was trained with. Raises UserError if its folder does not contain them."""
    path = run / STATE_FILE
    try:
        with safe_open(path, "pt") as file:
            identity = json.loads(file.metadata()["run"])["identity"]
        return from_dict(PretrainConfig, {**identity["run"], "loop": identity["loop"]}, str(path))
    except (SafetensorError, OSError, TypeError, KeyError, ValueError) as error:
        raise UserError(
            f"'{run}' has no readable training settings ({error}): give a run folder of "
            "training/pretrain.py"
        ) from None


def data_identity(trained: PretrainConfig) -> dict[str, object]:
    """What a run's held-out set depends on, as plain JSON values."""
    return {
        "sources": [dataclasses.asdict(source) for source in trained.sources],
        "held_out": trained.held_out,
    }


def trained_frames(trained: PretrainConfig) -> int:
    """The largest span of a training triplet, in frames (of a source with stride 1)."""
    return 2 * trained.gaps.frames
