"""Demonstrations of LIBERO and robomimic: HDF5 files with ``data/demo_N/{actions, obs/...}``, many
demonstrations per file.

LIBERO stores its ``*_rgb`` images upside down, as OpenGL renders them; their rows are reversed here
(left stays left). Robomimic's ``*_image`` images are upright. The instruction is that of the
attribute ``problem_info``, which LIBERO stores in each file.
"""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from alam_core.errors import UserError
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
    listing,
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


def open_libero(request: Request) -> ForeignDataset:
    """Every demonstration of the ``*.hdf5`` file or files at ``request.folder``. Raises UserError
    if there are none.
    """
    h5py = need("h5py", "h5py", "HDF5 files")
    folder = request.folder
    files = (
        [folder]
        if folder.is_file()
        else sorted(path for path in folder.rglob("*") if path.suffix in (".hdf5", ".h5"))
    )
    if not files:
        raise UserError(
            f"'{folder}' holds no .hdf5 files; "
            "give a folder of LIBERO's or robomimic's demonstrations, or one such file"
        )
    recordings: list[Recording] = []
    rates: list[float] = []
    for path in files:
        name = path.name if folder.is_file() else path.relative_to(folder).as_posix()
        try:
            with h5py.File(path, "r") as file:
                demos = sorted(file["data"], key=_number)
                rates.append(_control_rate(file["data"].attrs))
        except (OSError, KeyError, RuntimeError) as error:
            recordings.append(broken(name, f"cannot be opened ({_line(error)})"))
            continue
        recordings += [
            Recording(f"{name}/{demo}", partial(_read, h5py, path, demo, request)) for demo in demos
        ]
    return ForeignDataset(
        "libero_panda", request.fps or (rates[0] if rates else FPS), len(recordings), recordings
    )


def _read(h5py: Any, path: Path, demo: str, request: Request) -> SourceEpisode:
    try:
        with h5py.File(path, "r") as file:
            group = file["data"][demo]
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
    raise BrokenEpisode(f"has no '{name}'; it has: {listing([*group, *group.get('obs', ())])}")


def _default_views(group: Any) -> dict[str, str]:
    found = {view: first_present(names, group.get("obs", ())) for view, names in VIEWS.items()}
    views = {view: name for view, name in found.items() if name}
    if not views:
        raise BrokenEpisode(
            f"has no images under a known name; it has: {listing(group.get('obs', ()))}; "
            "name them with --views.NAME KEY"
        )
    return views


def _default_state(group: Any) -> list[str]:
    for names in STATES:
        if all(name in group.get("obs", ()) for name in names):
            return names
    raise BrokenEpisode(
        f"has no state under a known name; it has: {listing(group.get('obs', ()))}; "
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
    return float(rate) if isinstance(rate, (int, float)) and rate > 0 else FPS


def _json(attributes: Any, name: str) -> dict[str, Any]:
    try:
        value = json.loads(attributes.get(name, "{}"))
    except (ValueError, TypeError):
        return {}
    return value if isinstance(value, dict) else {}


def _number(demo: str) -> tuple[int, str]:
    digits = demo.rsplit("_", 1)[-1]
    return (int(digits) if digits.isdigit() else 0, demo)


def _line(error: Exception) -> str:
    return " ".join(str(error).split()).strip("\"'")
