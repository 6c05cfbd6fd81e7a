"""Which features of a data set are its state, its action and its camera views."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alam_core.data.lerobot import layout
from alam_core.data.lerobot.schema import FEATURE, check
from alam_core.errors import UserError


@dataclass(frozen=True)
class Columns:
    """The features to read.

    state, action: names of features; empty: it is not read. images: view -> name of a video
    feature; empty: every video feature is a view, which has the feature's name without
    ``observation.images.``.
    """

    state: str = layout.STATE
    action: str = layout.ACTION
    images: dict[str, str] = field(default_factory=dict)


def check_features(root: Path, features: dict[str, Any]) -> None:
    """Raises UserError for a feature whose type or shape is not one."""
    for name, feature in features.items():
        where = f"'{root / layout.INFO}': feature '{name}'"
        if not isinstance(feature, dict):
            raise UserError(f"{where} is not an object with dtype and shape; restore the file")
        check(feature, FEATURE, where)


def video_features(root: Path, features: dict[str, Any], images: dict[str, str]) -> dict[str, str]:
    """View -> name of its video feature. images: see ``Columns``.

    Raises UserError for a name in ``images`` that is not a video feature, for images that are not
    stored as video, and for two features whose views would have the same name.
    """
    stored = {key: feature["dtype"] for key, feature in features.items()}
    videos = [key for key, dtype in stored.items() if dtype == "video"]
    chosen = list(images.values()) or [key for key in stored if stored[key] in ("video", "image")]
    stills = [key for key in chosen if stored.get(key) == "image"]
    if stills:
        raise UserError(
            f"'{root}' stores {', '.join(stills)} as single images; "
            "convert it to video with lerobot's scripts"
        )
    for key in chosen:
        if key not in videos:
            raise UserError(
                f"'{root}' has no video '{key}'; it has: {', '.join(videos) or 'none'}: "
                "choose some with --images"
            )
    if images:
        return dict(images)
    named: dict[str, str] = {}
    for key in videos:
        if (view := view_name(key)) in named:
            raise UserError(
                f"'{root}': the videos '{named[view]}' and '{key}' would both be view '{view}': "
                f"""name them, for example --images '{{"a": "{named[view]}", "b": "{key}"}}'"""
            )
        named[view] = key
    return named


def view_name(key: str) -> str:
    """Camera name of a video feature. Dots become underscores, because the names of torch modules
    cannot contain them.
    """
    return key.removeprefix(layout.IMAGES).removeprefix("observation.").replace(".", "_")


def vectors(features: dict[str, Any]) -> dict[str, int]:
    """The features that can be a state or an action: name -> width."""
    return {
        name: int(feature["shape"][0])
        for name, feature in features.items()
        if name not in layout.INDEX_COLUMNS
        and len(feature.get("shape") or []) == 1
        and feature["dtype"].startswith(("float", "int", "uint"))
    }


def no_column(root: Path, features: dict[str, Any], option: str, feature: str) -> str:
    """The message for a data set without the vector ``feature``, which --``option`` names."""
    known = ", ".join(f"{name} ({width})" for name, width in vectors(features).items())
    return (
        f"'{root}' has no column '{feature}' for the {option}, which a policy needs; its columns "
        f"are: {known or 'none'}: name one with --{option}"
    )


def column_names(root: Path, features: dict[str, Any], feature: str) -> list[str]:
    """One name per column of a vector feature, in any of the forms that LeRobot has used; numbers
    if the data set has no names that fit. Empty if there is no such feature.

    Raises UserError if the feature is not a vector of numbers, or has a name twice.
    """
    if feature not in features:
        return []
    width = vectors(features).get(feature)
    where = f"'{root / layout.INFO}': feature '{feature}'"
    if width is None:
        raise UserError(
            f"{where}, {features[feature]['dtype']} of shape {features[feature].get('shape')}, is "
            "not a vector of numbers: choose another with --state or --action"
        )
    names = _flat(features[feature].get("names"))
    if len(names) != width:
        return [str(i) for i in range(width)]
    if fault := name_fault(names):
        raise UserError(f"{where} {fault}")
    return names


def name_fault(names: Sequence[str]) -> str:
    """What is wrong with the names of a vector's columns, to follow its name; "" if nothing is."""
    twice = next((name for name in names if list(names).count(name) > 1), None)
    if twice is not None:
        return f"has the name '{twice}' twice: give each column its own name"
    if not all(name.strip() and name != "None" for name in names):
        return "has a column without a name: name each column"
    return ""


def _flat(names: Any) -> list[str]:
    """Names as a list. Data sets have them as a list, as column -> number, or as group -> list."""
    if isinstance(names, dict):
        if all(isinstance(value, int) for value in names.values()):
            return sorted(names, key=lambda name: names[name])
        names = list(names.values())
    if isinstance(names, list):
        return [name for inner in names for name in (_flat(inner) or [str(inner)])]
    return []
