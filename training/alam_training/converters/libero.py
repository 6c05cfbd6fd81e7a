"""Demonstrations of LIBERO and robomimic: HDF5 files with ``data/demo_N/{actions, obs/...}``, many
demonstrations per file.

LIBERO stores its ``*_rgb`` images upside down, as OpenGL renders them; their rows are reversed here
(left stays left). Robomimic's ``*_image`` images are upright. The instruction is that of the
attribute ``problem_info``, which LIBERO stores in each file.
"""

import json
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from alam_core.errors import UserError, listing, one_line, reason
from alam_core.files import instead_of
from alam_training.converters.source import (
    BrokenEpisode,
    ForeignDataset,
    Recording,
    Request,
    SourceEpisode,
    broken,
    chosen,
    first_present,
    join_columns,
    need,
    stack_images,
)

FPS = 20.0  # control rate of LIBERO and robomimic, for files that do not state it
VIEWS = {
    "third_person": ("agentview_rgb", "agentview_image"),
    "wrist": ("eye_in_hand_rgb", "robot0_eye_in_hand_image"),
}
STATES = (
    ["ee_states", "gripper_states"],
    ["robot0_eef_pos", "robot0_eef_quat", "robot0_gripper_qpos"],
)
ACTION = ["actions"]


def _hdf5() -> Any:
    return need("h5py", "h5py", "HDF5 files")


def open_libero(request: Request) -> ForeignDataset:
    """Every demonstration of the ``*.hdf5`` file or files at ``request.folder``. Raises UserError
    if there are none.
    """
    h5py = _hdf5()
    folder = request.folder
    files = (
        [folder]
        if folder.is_file()
        else sorted(
            path
            for path in folder.rglob("*")
            if path.suffix in (".hdf5", ".h5") and not path.is_dir()
        )
    )
    if not files:
        raise UserError(
            f"'{folder}' holds no .hdf5 files; "
            "give a folder of LIBERO's or robomimic's demonstrations, or one such file"
        )
    recordings: list[Recording] = []
    faults: dict[str, str] = {}  # file -> why it cannot be opened
    rates: dict[str, float] = {}  # file -> its control rate, 0 if it is not stated
    for path in files:
        name = path.name if folder.is_file() else path.relative_to(folder).as_posix()
        try:
            with h5py.File(path, "r") as file:
                demos = _demonstrations(file)
                rates[name] = _control_rate(file["data"].attrs)
        except BrokenEpisode as error:
            faults[name] = str(error)
            continue
        except (OSError, KeyError, RuntimeError) as error:
            faults[name] = _unreadable(path, error)
            continue
        recordings += [
            Recording(f"{name}/{demo}", partial(_read, path, demo, request)) for demo in demos
        ]
    if not rates:
        name, reason = next(iter(faults.items()))
        raise UserError(
            f"none of the {len(files)} files in '{folder}' can be read: {name} {reason}"
        )
    usual = max(1, round(len(recordings) / len(rates)))  # episodes of a file
    recordings += [broken(name, reason, usual) for name, reason in faults.items()]
    count = sum(recording.episodes for recording in recordings)
    fps = request.fps or _common_rate(folder, rates)
    note = ""
    if not (request.fps or all(rates.values())):
        unstated = listing(name for name, rate in rates.items() if not rate)
        note = f"{unstated}: no control rate is stated; {fps:g} per second is assumed, see --fps"
    return ForeignDataset("libero_panda", fps, count, recordings, note)


def _common_rate(folder: Path, rates: Mapping[str, float]) -> float:
    """The control rate of the files that state one. Raises UserError if they differ."""
    stated = {rate: name for name, rate in rates.items() if rate}
    if len(stated) > 1:
        raise UserError(
            f"the files in '{folder}' have different control rates "
            f"({listing(f'{name}: {rate:g}' for rate, name in stated.items())} per second): "
            "convert them separately, or give the right one with --fps"
        )
    return next(iter(stated), FPS)


def _demonstrations(file: Any) -> list[str]:
    """The names of a file's demonstrations, in order. Raises BrokenEpisode for another layout."""
    demos = file["data"] if isinstance(file.get("data"), Mapping) else {}
    if not demos:
        raise BrokenEpisode(
            "is not in the layout of LIBERO and robomimic, data/demo_N/{actions, obs/...}; "
            f"it has: {listing(file)}; convert it with the script of the project that it comes "
            "from (for ALOHA: LeRobot's)"
        )
    return sorted(demos, key=_number)


def _read(path: Path, demo: str, request: Request) -> SourceEpisode:
    h5py = _hdf5()
    try:
        with h5py.File(path, "r") as file:
            group = file["data"][demo]
            if not isinstance(group, Mapping):
                raise BrokenEpisode("is an array, not a group with actions and obs")
            views = request.views or _default_views(group)
            state = chosen(request.state, [] if request.state else _default_state(group))
            images = {}
            for view, name in views.items():
                images[view] = stack_images(_frames(group, name), request.image_size, name)
            steps = min(len(frames) for frames in images.values())
            states, state_names = join_columns(
                {name: _values(group, name) for name in state}, steps
            )
            actions, action_names = join_columns(
                {name: _values(group, name) for name in chosen(request.action, ACTION)}, steps
            )
            return SourceEpisode(
                images, states, actions, state_names, action_names, _instruction(file["data"].attrs)
            )
    except (OSError, KeyError, RuntimeError) as error:
        raise BrokenEpisode(_line(error)) from None


def _frames(group: Any, name: str) -> Iterator[np.ndarray]:
    """Images of a view, upright, uint8 (H, W, 3) each."""
    frames = _dataset(group, name)
    upside_down = name.endswith("_rgb")
    for i in range(len(frames)):
        yield np.ascontiguousarray(frames[i][::-1] if upside_down else frames[i])


def _values(group: Any, name: str) -> np.ndarray:
    return _dataset(group, name)[()]


def _dataset(group: Any, name: str) -> Any:
    """The array ``name`` of the observations, or of the demonstration itself."""
    for place in (f"obs/{name}", name):
        if place in group and hasattr(group[place], "shape"):
            return group[place]
    there = [*_observations(group), *group]
    raise BrokenEpisode(f"has no '{name}'; it has: {listing(there, like=name)}")


def _default_views(group: Any) -> dict[str, str]:
    found = {view: first_present(names, _observations(group)) for view, names in VIEWS.items()}
    views = {view: name for view, name in found.items() if name}
    if not views:
        raise BrokenEpisode(
            f"has no images under a known name; it has: {listing(_images(group))}; "
            "name them with --views.NAME KEY"
        )
    return views


def _observations(group: Any) -> Mapping[str, Any]:
    observations = group.get("obs")
    return observations if isinstance(observations, Mapping) else {}


def _images(group: Any) -> list[str]:
    """The observations that may be images, for a message."""
    there = _observations(group)
    return [name for name in there if getattr(there[name], "ndim", 0) == 4]


def _numeric(group: Any) -> list[str]:
    """The other observations, for a message."""
    images = _images(group)
    return [name for name in _observations(group) if name not in images]


def _default_state(group: Any) -> list[str]:
    for names in STATES:
        if all(name in _observations(group) for name in names):
            return names
    raise BrokenEpisode(
        f"has no state under a known name; it has: {listing(_numeric(group))}; "
        "name it with --state '[KEY, ...]', or [none]"
    )


def _instruction(attributes: Any) -> str:
    """The instruction in problem_info, without the quotes that some files put around it; '' if
    there is none.
    """
    text = _json(attributes, "problem_info").get("language_instruction", "")
    return ("".join(text) if isinstance(text, list) else str(text)).strip().strip('"').strip()


def _control_rate(attributes: Any) -> float:
    settings = _json(attributes, "env_args").get("env_kwargs")
    rate = settings.get("control_freq") if isinstance(settings, dict) else None
    return float(rate) if isinstance(rate, (int, float)) and rate > 0 else 0.0


def _json(attributes: Any, name: str) -> dict[str, Any]:
    try:
        value = json.loads(attributes.get(name, "{}"))
    except (ValueError, TypeError):
        return {}
    return value if isinstance(value, dict) else {}


def _number(demo: str) -> tuple[int, str]:
    digits = demo.rsplit("_", 1)[-1]
    return (int(digits) if digits.isdigit() else 0, demo)


def _unreadable(path: Path, error: Exception) -> str:
    if instead := instead_of(path, "demonstrations"):
        return f"is {instead}"
    # HDF5 adds the state of its own variables to what the system says.
    said = reason(error) if isinstance(error, OSError) and error.errno else _line(error)
    return f"is cut short, damaged or no HDF5 file ({said}); copy it again"


def _line(error: Exception) -> str:
    return one_line(error).strip("\"'")
