"""The files of an RLDS data set, as TensorFlow Datasets writes them: records of tfrecord shards,
features.json, and dataset_info.json.
"""

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alam_core.errors import UserError


@dataclass
class Leaf:
    """The entry of features.json for one feature of a single step."""

    shape: tuple[int, ...]  # -1 for unknown
    dtype: str
    encoding: str  # none, bytes or zlib


def read_records(path: Path, crc32c: Any) -> Iterator[tuple[bytes, str]]:
    """The records of a tfrecord file: (data, ''), or (b'', reason) for a broken one.

    A record is its length (8 bytes), the length's checksum, the data, and the data's checksum. A
    broken length loses the rest of the file.
    """
    with path.open("rb") as file:
        while head := file.read(12):
            length = struct.unpack("<Q", head[:8])[0] if len(head) == 12 else 0
            if len(head) == 12 and _masked(crc32c(head[:8])) != struct.unpack("<I", head[8:])[0]:
                yield b"", "its length has a wrong checksum; the rest of the file is lost"
                return
            data, tail = file.read(length), file.read(4)
            if len(head) < 12 or len(data) < length or len(tail) < 4:
                yield b"", "the file is cut short here"
                return
            if _masked(crc32c(data)) != struct.unpack("<I", tail)[0]:
                yield b"", "its data have a wrong checksum"
            else:
                yield data, ""


def count_records(path: Path) -> int | None:
    """Number of records in a tfrecord file, from their lengths alone; None if it is cut short or a
    length is broken.
    """
    count = position = 0
    size = path.stat().st_size
    with path.open("rb") as file:
        while position < size:
            file.seek(position)
            head = file.read(8)
            position += struct.unpack("<Q", head)[0] + 16 if len(head) == 8 else size
            count += 1
    return count if position == size else None


def shard_lengths(path: Path) -> dict[tuple[str, int], int]:
    """(split, shard) -> number of episodes, according to dataset_info.json."""
    try:
        splits = _json(path).get("splits", [])
        return {
            (split["name"], i): int(n)
            for split in splits
            for i, n in enumerate(split.get("shardLengths", []))
        }
    except (KeyError, TypeError, ValueError, AttributeError):
        raise UserError(
            f"'{path}' is not in the format of TensorFlow Datasets; restore or remove the file"
        ) from None


def read_features(path: Path) -> dict[str, Leaf]:
    """Key in a record -> feature, from features.json; empty if there is no such file."""
    return _leaves(_json(path), "")


def _masked(crc: int) -> int:
    """The checksum as tfrecord files store it."""
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def _leaves(node: dict[str, Any], key: str) -> dict[str, Leaf]:
    """Key in a record -> feature, for the features that are numbers or images."""
    if "featuresDict" in node:
        children = node["featuresDict"].get("features", {}).items()
        return {
            path: leaf
            for name, child in children
            for path, leaf in _leaves(child, f"{key}/{name}".lstrip("/")).items()
        }
    if "sequence" in node:
        return _leaves(node["sequence"].get("feature", {}), key)
    kind = next((kind for kind in ("tensor", "image") if kind in node), None)
    if kind is None:
        return {}
    dimensions = node[kind].get("shape", {}).get("dimensions", [])
    shape = tuple(int(n) for n in dimensions)
    return {key: Leaf(shape, node[kind].get("dtype", ""), node[kind].get("encoding", "none"))}


def _json(path: Path) -> dict[str, Any]:
    """A JSON object; empty if there is no such file."""
    if not path.is_file():
        return {}
    try:
        values = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"'{path}' is broken JSON ({error}); restore or remove the file") from None
    return values if isinstance(values, dict) else {}
