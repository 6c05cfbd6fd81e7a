"""RLDS / Open X-Embodiment: folders of tfrecord shards as TensorFlow Datasets writes them, read
without TensorFlow.

One record is one episode: a tf.train.Example whose ``steps/...`` features hold all T steps in
sequence, numbers flattened and images encoded one by one. ``features.json`` beside the shards
states shapes and encodings; without it they are inferred from the lengths of the lists.
"""

import math
import re
import zlib
from collections.abc import Iterator
from functools import cache, partial
from typing import Any

import numpy as np

from alam_core.errors import UserError, listing
from alam_training.converters.rlds_files import (
    Leaf,
    count_records,
    read_features,
    read_records,
    shard_lengths,
)
from alam_training.converters.source import (
    BrokenEpisode,
    ForeignDataset,
    Recording,
    Request,
    SourceEpisode,
    broken,
    chosen,
    decode_image,
    first_present,
    join_columns,
    need,
    stack_images,
)

SHARD = re.compile(r"(?P<name>.+)-(?P<split>[^-]+)\.tfrecord(-(?P<index>\d+)-of-(?P<total>\d+))?")
VIEWS = {
    "third_person": (
        "image",
        "image_primary",
        "agentview_rgb",
        "front_rgb",
        "rgb_static",
        "rgb",
        "exterior_image_1_left",
        "image_0",
    ),
    "wrist": (
        "wrist_image",
        "hand_image",
        "image_wrist",
        "eye_in_hand_rgb",
        "rgb_gripper",
        "wrist_image_left",
        "wrist45_image",
    ),
}
STATES = (
    ["state"],
    ["proprio"],
    ["robot_state"],
    ["robot_obs"],
    ["base_pose_tool_reached", "gripper_closed"],
    ["end_effector_cartesian_pos"],
    ["joint_states", "gripper_states"],
    ["joint_position"],
)
ACTIONS = (
    ["action"],
    ["action/world_vector", "action/rotation_delta", "action/gripper_closedness_action"],
    ["action/world_vector", "action/rotation_delta", "action/open_gripper"],
    ["action/world_vector", "action/rotation_delta"],
    ["action/world_vector", "action/gripper_closedness_action"],
    ["action/actions"],
)
PLACES = ("steps/observation/{}", "steps/{}", "{}")
ENCODED = (b"\x89PNG", b"\xff\xd8\xff")  # first bytes of encoded images


def _example() -> Any:
    return need("tfrecord.example_pb2", "tfrecord", "tfrecord files").Example


def open_rlds(request: Request) -> ForeignDataset:
    """The shards below ``request.folder``; ``request.part`` is a split. Raises UserError if there
    are none, if they belong to several data sets, or if no rate is given.
    """
    _example()  # or an error that says how to get it
    crc32c = need("crc32c", "crc32c", "tfrecord files").crc32c
    found = [
        (path, match)
        for path in sorted(request.folder.rglob("*.tfrecord*"))
        if (match := SHARD.fullmatch(path.name))
    ]
    shards = [(path, match) for path, match in found if request.part in ("", match["split"])]
    if not found:
        raise UserError(
            f"'{request.folder}' holds no .tfrecord shards; "
            "give the folder of a data set's version, such as bridge/0.1.0"
        )
    if not shards:
        raise UserError(
            f"'{request.folder}' has no split '{request.part}'; "
            f"it has: {listing(sorted({match['split'] for _, match in found}))}"
        )
    folders = sorted({path.parent for path, _ in shards})
    if len(folders) > 1:
        raise UserError(
            f"'{request.folder}' holds {len(folders)} data sets "
            f"('{folders[0]}', '{folders[1]}', ...); give one of them"
        )
    if not request.fps:
        raise UserError(
            "RLDS data sets do not state their rate; "
            "give it with --fps (5 for BridgeData, 3 for RT-1, 15 for DROID)"
        )
    stated = shard_lengths(folders[0] / "dataset_info.json")
    lengths = {
        path: stated.get((match["split"], int(match["index"] or 0))) for path, match in shards
    }
    known = [length for length in lengths.values() if length is not None]
    leaves = read_features(folders[0] / "features.json")

    @cache
    def usual_length() -> int:
        """Episodes of a whole shard, for broken shards of unknown length."""
        whole = [count for path in lengths if (count := count_records(path))]
        return round(sum(whole) / len(whole)) if whole else 0

    def recordings() -> Iterator[Recording]:
        for path, length in lengths.items():
            n = 0
            for n, (data, error) in enumerate(read_records(path, crc32c), start=1):
                name = f"{path.name}#{n - 1}"
                yield (
                    broken(name, error)
                    if error
                    else Recording(name, partial(_read, data, leaves, request))
                )
            if length is None and count_records(path) is None:
                length = usual_length()
            for lost in range(n, length or 0):
                yield broken(f"{path.name}#{lost}", f"the file ends after {n} of {length} episodes")

    missing = sum({match["split"]: int(match["total"] or 1) for _, match in shards}.values()) - len(
        shards
    )
    note = (
        f"{missing} of {missing + len(shards)} shards are missing and left out"
        if missing > 0
        else ""
    )
    return ForeignDataset(
        shards[0][1]["name"],
        request.fps,
        sum(known) if len(known) == len(lengths) else None,
        recordings(),
        note,
    )


def _read(data: bytes, leaves: dict[str, Leaf], request: Request) -> SourceEpisode:
    try:
        features = _example().FromString(data).features.feature
    except Exception as error:  # DecodeError of protobuf, which is not imported here
        raise BrokenEpisode(f"is not a tf.train.Example ({error})") from None
    values = {
        key: getattr(feature, kind).value
        for key, feature in features.items()
        if (kind := feature.WhichOneof("kind"))
    }
    views = request.views or _default_views(values, leaves)
    paths = {view: _path(values, name, _image_keys(values, leaves)) for view, name in views.items()}
    numeric = [key for key in values if not _is_bytes(values[key]) or key in leaves]
    steps = _steps(values, leaves, next(iter(paths.values())))
    images = {
        view: stack_images(_frames(values, leaves, steps, path), request.image_size, path)
        for view, path in paths.items()
    }
    columns = []
    for what, asked, usual in (
        ("state", request.state, STATES),
        ("action", request.action, ACTIONS),
    ):
        keys = {
            name: _path(values, name, numeric)
            for name in chosen(asked, [] if asked else _usual(what, usual, values, numeric))
        }
        columns.append(
            join_columns(
                {
                    name: _numbers(values[key], leaves.get(key), steps, key)
                    for name, key in keys.items()
                },
                steps,
            )
        )
    (state, state_names), (action, action_names) = columns
    return SourceEpisode(images, state, action, state_names, action_names, _instruction(values))


def _steps(values: dict[str, Any], leaves: dict[str, Leaf], key: str) -> int:
    """Number of images under ``key``."""
    if not len(values[key]) or _is_bytes(values[key]):
        return len(values[key])
    leaf = leaves.get(key)
    if leaf is None or leaf.dtype != "uint8" or len(leaf.shape) != 3 or math.prod(leaf.shape) <= 0:
        raise BrokenEpisode(
            f"{key} holds plain numbers, and features.json does not describe them as images "
            "of a known height and width"
        )
    return len(values[key]) // math.prod(leaf.shape)


def _usual(
    what: str, usual: tuple[list[str], ...], values: dict[str, Any], numeric: list[str]
) -> list[str]:
    """The first set of default names that is complete in the record."""
    for names in usual:
        if all(any(place.format(name) in values for place in PLACES) for name in names):
            return names
    raise BrokenEpisode(
        f"has no {what} under a known name; it has: {listing(numeric, like=what)}; "
        f"name it with --{what} '[KEY, ...]', or [none]"
    )


def _path(values: dict[str, Any], name: str, choices: list[str]) -> str:
    """Full key of the feature ``name``. choices: possible keys, for the error message."""
    for place in PLACES:
        if place.format(name) in values:
            return place.format(name)
    raise BrokenEpisode(f"has no '{name}'; it has: {listing(choices, like=name)}")


def _is_bytes(values: Any) -> bool:
    return bool(len(values)) and isinstance(values[0], bytes)


def _image_keys(values: dict[str, Any], leaves: dict[str, Leaf]) -> list[str]:
    """Keys of features that could be images."""
    encoded = [
        key for key, value in values.items() if _is_bytes(value) and value[0].startswith(ENCODED)
    ]
    return encoded + [
        key
        for key, leaf in leaves.items()
        if leaf.dtype == "uint8" and len(leaf.shape) == 3 and key not in encoded
    ]


def _default_views(values: dict[str, Any], leaves: dict[str, Leaf]) -> dict[str, str]:
    images = _image_keys(values, leaves)
    names = [key.rsplit("/", 1)[-1] for key in images if key.startswith("steps/")]
    views = {view: name for view, known in VIEWS.items() if (name := first_present(known, names))}
    if not views:
        raise BrokenEpisode(
            f"has no images under a known name; it has: {listing(images)}; "
            "name them with --views.NAME KEY"
        )
    return views


def _frames(
    record: dict[str, Any], leaves: dict[str, Leaf], steps: int, key: str
) -> Iterator[np.ndarray]:
    """Images (H, W, 3) of every step."""
    values, leaf = record[key], leaves.get(key)
    if len(values) and not _is_bytes(values):
        if _steps(record, leaves, key) != steps or math.prod(leaves[key].shape) * steps != len(
            values
        ):
            raise BrokenEpisode(
                f"{key} holds {len(values)} numbers, not {steps} images of {leaves[key].shape}"
            )
        yield from np.array(values, np.uint8).reshape(steps, *leaves[key].shape)
        return
    if len(values) != steps:
        raise BrokenEpisode(f"{key} holds {len(values)} images for {steps} steps")
    for i, data in enumerate(values):
        if leaf is not None and leaf.encoding != "none":
            yield _unpack(data, leaf, key).reshape(leaf.shape)
        else:
            yield decode_image(data, f"{key} of step {i}")


def _numbers(values: Any, leaf: Leaf | None, steps: int, key: str) -> np.ndarray:
    """The flat list of all steps as (T, n)."""
    if _is_bytes(values):
        if leaf is None or leaf.encoding == "none":
            raise BrokenEpisode(f"{key} holds text or encoded data, not numbers")
        rows = np.concatenate([_unpack(data, leaf, key) for data in values])
    else:
        rows = np.array(values)
    width = math.prod(leaf.shape) if leaf else -1
    fits = len(rows) == steps * width if width > 0 else len(rows) and len(rows) % steps == 0
    if not fits:
        raise BrokenEpisode(
            f"{key} holds {len(rows)} numbers for {steps} steps"
            + (f" of {width}" if width > 0 else "")
        )
    return rows.reshape(steps, -1)


def _unpack(data: bytes, leaf: Leaf, key: str) -> np.ndarray:
    """The flat tensor of one step, which is stored as bytes."""
    try:
        values = np.frombuffer(
            zlib.decompress(data) if leaf.encoding == "zlib" else data, np.dtype(leaf.dtype)
        )
    except (zlib.error, ValueError, TypeError) as error:
        raise BrokenEpisode(f"{key} cannot be decoded ({error})") from None
    if math.prod(leaf.shape) not in (len(values), -len(values)):
        raise BrokenEpisode(
            f"{key} holds {len(values)} numbers per step, but features.json says {leaf.shape}"
        )
    return values


def _instruction(values: dict[str, Any]) -> str:
    """The first text among ``...instruction`` that is not empty; '' if there is none."""
    keys = [
        key for key, value in values.items() if key.endswith("instruction") and _is_bytes(value)
    ]
    texts = (
        values[key][0].decode(errors="replace").strip()
        for key in sorted(keys, key=lambda key: (len(key), key))
    )
    return next((text for text in texts if text), "")
