"""Data sets in RLDS form, written by the tfrecord package as TensorFlow Datasets lays them out,
through the converter and back.
"""

import io
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from convert_fixtures import LENGTHS, check_frames, numbers, pictures, run
from PIL import Image
from tfrecord.writer import TFRecordWriter

from alam_core.errors import UserError


def encode(image: np.ndarray, kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind, **({"quality": 95} if kind == "JPEG" else {}))
    return buffer.getvalue()


def record(e: int, steps: int) -> dict[str, tuple[Any, str]]:
    """One episode as TensorFlow Datasets flattens it."""
    return {
        "steps/observation/image": (
            [encode(image, "JPEG") for image in pictures(e, steps)],
            "byte",
        ),
        "steps/observation/wrist_image": (
            [encode(image, "PNG") for image in pictures(e, steps, 40, 40)],
            "byte",
        ),
        "steps/observation/depth": (
            [encode(np.full((8, 8), 300, np.uint16), "PNG")] * steps,
            "byte",
        ),
        "steps/observation/raw": (pictures(e, steps, 24, 16).ravel().tolist(), "int"),
        "steps/observation/state": (numbers(e, steps, 8).ravel(), "float"),
        "steps/observation/packed": (
            [zlib.compress(row.tobytes()) for row in numbers(e, steps, 3).astype(np.float64)],
            "byte",
        ),
        "steps/action": (numbers(-e, steps, 7).ravel(), "float"),
        "steps/action_dict/xyz": (numbers(e, steps, 3).ravel(), "float"),
        "steps/action_dict/open": ([step % 2 for step in range(steps)], "int"),
        "steps/is_first": ([int(step == 0) for step in range(steps)], "int"),
        "steps/language_instruction": ([f"stack block {e}".encode()] * steps, "byte"),
        "steps/language_embedding": (np.zeros(4 * steps, np.float32), "float"),
        "episode_metadata/file_path": ([b"somewhere"], "byte"),
    }


def tensor(
    shape: tuple[int, ...], dtype: str = "float32", encoding: str = "none"
) -> dict[str, Any]:
    return {
        "tensor": {
            "shape": {"dimensions": [str(n) for n in shape]},
            "dtype": dtype,
            "encoding": encoding,
        }
    }


def features() -> dict[str, Any]:
    """features.json of those records."""
    observation = {
        "image": {
            "image": {
                "shape": {"dimensions": ["48", "64", "3"]},
                "dtype": "uint8",
                "encodingFormat": "jpeg",
            }
        },
        "raw": tensor((24, 16, 3), "uint8"),
        "state": tensor((8,)),
        "packed": tensor((3,), "float64", "zlib"),
    }
    steps = {
        "observation": {"featuresDict": {"features": observation}},
        "action": tensor((7,)),
        "language_instruction": {"text": {}},
    }
    sequence = {"sequence": {"feature": {"featuresDict": {"features": steps}}, "length": "-1"}}
    return {"featuresDict": {"features": {"steps": sequence}}}


def write(
    folder: Path,
    shards: tuple[tuple[int, ...], ...] = (LENGTHS[:2], LENGTHS[2:]),
    split: str = "train",
    with_json: bool = True,
) -> Path:
    """A data set of one split, one shard per tuple of episode lengths; ``with_json``: with the JSON
    files beside.
    """
    folder.mkdir(parents=True, exist_ok=True)
    e = 0
    for i, lengths in enumerate(shards):
        writer = TFRecordWriter(str(folder / f"toy-{split}.tfrecord-{i:05d}-of-{len(shards):05d}"))
        for steps in lengths:
            writer.write(record(e, steps))
            e += 1
        writer.close()
    if with_json:
        info = {
            "name": "toy",
            "splits": [{"name": split, "shardLengths": [str(len(lengths)) for lengths in shards]}],
        }
        (folder / "dataset_info.json").write_text(json.dumps(info))
        (folder / "features.json").write_text(json.dumps(features()))
    return folder


@pytest.mark.parametrize("with_json", [True, False], ids=["with json files", "by inference"])
def test_numbers_images_and_instructions_are_kept(tmp_path: Path, with_json: bool) -> None:
    write(tmp_path / "toy/1.0.0", with_json=with_json)
    dataset, summary = run("rlds", tmp_path / "toy", tmp_path / "out", fps=5.0)
    assert (summary.episodes, summary.broken, dataset.fps, dataset.info["robot_type"]) == (
        3,
        {},
        5,
        "toy",
    )
    assert dataset.views == ("third_person", "wrist") and dataset.action_names == [
        f"action_{i}" for i in range(7)
    ]
    for e, steps in enumerate(LENGTHS):
        arrays = dataset.episode(e)
        np.testing.assert_array_equal(arrays.state, numbers(e, steps, 8))
        np.testing.assert_array_equal(arrays.action, numbers(-e, steps, 7))
        assert arrays.task == f"stack block {e}"
        check_frames(dataset, e, "third_person", pictures(e, steps))
        check_frames(dataset, e, "wrist", pictures(e, steps, 40, 40))


def test_keys_can_be_named_and_concatenated_and_packed_tensors_are_read(tmp_path: Path) -> None:
    write(tmp_path / "in")
    dataset, _ = run(
        "rlds",
        tmp_path / "in",
        tmp_path / "out",
        fps=5.0,
        views={"wrist": "raw"},
        state=["packed", "steps/observation/state"],
        action=["action_dict/xyz", "action_dict/open"],
    )
    assert dataset.action_names == ["xyz_0", "xyz_1", "xyz_2", "open"]
    arrays = dataset.episode(0)
    np.testing.assert_array_equal(arrays.state, np.hstack([numbers(0, 7, 3), numbers(0, 7, 8)]))
    np.testing.assert_array_equal(arrays.action[:, 3], [0, 1, 0, 1, 0, 1, 0])
    check_frames(dataset, 0, "wrist", pictures(0, 7, 24, 16))


def test_the_default_names_of_open_x_are_known_and_a_missing_state_is_reported(
    tmp_path: Path,
) -> None:
    taken = {
        key: value
        for key, value in record(0, 4).items()
        if "state" not in key and not key.startswith("steps/action")
    }
    taken["steps/action/terminate_episode"] = ([0] * 12, "int")
    taken["steps/action/rotation_delta"] = (numbers(2, 4, 3).ravel(), "float")
    taken["steps/action/world_vector"] = (numbers(1, 4, 3).ravel(), "float")
    taken["steps/action/gripper_closedness_action"] = (numbers(3, 4, 1).ravel(), "float")
    taken["steps/observation/natural_language_instruction"] = taken.pop(
        "steps/language_instruction"
    )
    (tmp_path / "in").mkdir()
    writer = TFRecordWriter(str(tmp_path / "in/roboturk-train.tfrecord-00000-of-00001"))
    writer.write(taken)
    writer.close()
    with pytest.raises(
        UserError,
        match=r"has no state under a known name; it has: .*--state '\[KEY, ...\]', or \[none\]",
    ):
        run("rlds", tmp_path / "in", tmp_path / "out", fps=10.0)
    dataset, _ = run("rlds", tmp_path / "in", tmp_path / "out", fps=10.0, state=["none"])
    arrays = dataset.episode(0)
    assert (
        arrays.state.shape == (4, 0)
        and dataset.state_names == []
        and arrays.task == "stack block 0"
    )
    np.testing.assert_array_equal(
        arrays.action, np.hstack([numbers(1, 4, 3), numbers(2, 4, 3), numbers(3, 4, 1)])
    )
    pictures_only, _ = run(
        "rlds", tmp_path / "in", tmp_path / "bare", fps=10.0, state=["none"], action=["none"]
    )
    assert (
        pictures_only.episode(0).action.shape == (4, 0) and "action" not in pictures_only.features
    )
    check_frames(pictures_only, 0, "third_person", pictures(0, 4))


def test_one_split_can_be_selected(tmp_path: Path) -> None:
    write(tmp_path / "in")
    write(tmp_path / "in", ((4,),), split="val", with_json=False)
    assert (
        run("rlds", tmp_path / "in", tmp_path / "a", fps=5.0, part="val")[0].episode_length(0) == 4
    )
    assert run("rlds", tmp_path / "in", tmp_path / "b", fps=5.0)[0].num_episodes == 4
    with pytest.raises(UserError, match="no split 'test'; it has: train, val"):
        run("rlds", tmp_path / "in", tmp_path / "c", fps=5.0, part="test")


def starts(path: Path) -> list[int]:
    """Where each record of a shard begins, and where the file ends."""
    data, at = path.read_bytes(), [0]
    while at[-1] < len(data):
        at.append(at[-1] + 16 + struct.unpack("<Q", data[at[-1] : at[-1] + 8])[0])
    return at


def damage(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 0xFF
    path.write_bytes(bytes(data))


def test_only_the_record_with_a_wrong_checksum_is_skipped(tmp_path: Path) -> None:
    write(tmp_path / "in", (LENGTHS,))
    shard = next((tmp_path / "in").glob("toy-train*"))
    damage(shard, starts(shard)[1] + 500)
    dataset, summary = run("rlds", tmp_path / "in", tmp_path / "out", fps=5.0, max_broken=0.5)
    assert [dataset.episode(e).task for e in range(2)] == ["stack block 0", "stack block 2"]
    assert summary.broken == {f"{shard.name}#1": "its data have a wrong checksum"}


@pytest.mark.parametrize("what", ["cut", "length", "border"])
def test_a_damaged_shard_loses_only_the_records_after_the_damage(tmp_path: Path, what: str) -> None:
    write(tmp_path / "in", (LENGTHS, (4,)))
    shard = tmp_path / "in/toy-train.tfrecord-00000-of-00002"
    second = starts(shard)[1]
    if what == "length":
        damage(shard, second)
    else:
        shard.write_bytes(shard.read_bytes()[: second + (300 if what == "cut" else 0)])
    dataset, summary = run("rlds", tmp_path / "in", tmp_path / "out", fps=5.0, max_broken=0.9)
    assert [dataset.episode_length(e) for e in range(2)] == [7, 4]
    expected = {
        "cut": "cut short",
        "length": "wrong checksum; the rest of the file is lost",
        "border": "ends after 1 of 3 episodes",
    }
    assert expected[what] in " ".join(summary.broken.values())
    assert set(summary.broken) == {f"{shard.name}#{n}" for n in (1, 2)}  # both lost episodes count
    if what != "cut":
        return
    with pytest.raises(UserError, match="cut short here.*nothing is written"):
        run("rlds", tmp_path / "in", tmp_path / "other", fps=5.0)


def test_a_damaged_shard_of_unknown_length_counts_as_a_usual_one(tmp_path: Path) -> None:
    write(tmp_path / "in", ((2,) * 6, (2,) * 6, (2,) * 6), with_json=False)
    shard = tmp_path / "in/toy-train.tfrecord-00001-of-00003"
    damage(shard, starts(shard)[0])
    with pytest.raises(UserError, match=r"6 of 18 episodes .* than --max_broken 0.3"):
        run("rlds", tmp_path / "in", tmp_path / "out", fps=5.0, max_broken=0.3)
    _, summary = run("rlds", tmp_path / "in", tmp_path / "out", fps=5.0, max_broken=0.5)
    assert (summary.episodes, summary.lost) == (12, 6)


def test_records_of_a_wrong_form_are_skipped_with_a_reason(tmp_path: Path) -> None:
    folder = write(tmp_path / "in", (LENGTHS,), with_json=False)
    writer = TFRecordWriter(str(folder / "toy-train.tfrecord-00001-of-00002"))
    cases: dict[str, dict[str, tuple[Any, str]]] = {
        "no images": {key: value for key, value in record(0, 4).items() if key == "steps/action"},
        "no steps": {key: (list(value[0])[:0], value[1]) for key, value in record(0, 4).items()},
        "short action": {**record(0, 4), "steps/action": ([0.0] * 27, "float")},
        "bad picture": {
            **record(0, 4),
            "steps/observation/image": ([b"\xff\xd8\xff no JPEG"] * 4, "byte"),
        },
        "not finite": {**record(0, 4), "steps/action": ([float("nan")] * 28, "float")},
    }
    for case in cases.values():
        writer.write(case)
    writer.close()
    dataset, summary = run("rlds", tmp_path / "in", tmp_path / "out", fps=5.0, max_broken=0.9)
    reasons = list(summary.broken.values())
    assert dataset.num_episodes == 3 and len(reasons) == len(cases)
    wanted = (
        "no images",
        "no images",
        "27 numbers for 4 steps",
        "image of step 0 cannot be decoded",
        "not finite",
    )
    for reason, words in zip(reasons, wanted, strict=True):
        assert words in reason and "\n" not in reason


def test_mistakes_are_reported_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no .tfrecord shards"):
        run("rlds", tmp_path / "empty", tmp_path / "out", fps=5.0)
    write(tmp_path / "in/a")
    with pytest.raises(UserError, match="--fps"):
        run("rlds", tmp_path / "in", tmp_path / "out")
    with pytest.raises(UserError, match=r"has no 'speed'; it has: .*steps/observation/state"):
        run("rlds", tmp_path / "in", tmp_path / "out", fps=5.0, state=["speed"])
    with pytest.raises(UserError, match=r"state holds plain numbers"):
        run("rlds", tmp_path / "in", tmp_path / "out", fps=5.0, views={"wrist": "state"})
    with pytest.raises(UserError, match=r"depth of step 0 is not a colour image"):
        run("rlds", tmp_path / "in", tmp_path / "out", fps=5.0, views={"wrist": "depth"})
    (tmp_path / "in/a/features.json").write_text("{")
    with pytest.raises(UserError, match="features.json' is broken JSON"):
        run("rlds", tmp_path / "in", tmp_path / "out", fps=5.0)
    write(tmp_path / "in/b")
    with pytest.raises(UserError, match="holds 2 data sets"):
        run("rlds", tmp_path / "in", tmp_path / "out", fps=5.0)


def test_missing_shards_are_counted_in_a_note(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write(tmp_path / "in")
    (folder / "toy-train.tfrecord-00000-of-00002").unlink()
    dataset, summary = run("rlds", folder, tmp_path / "out", fps=5.0)
    assert dataset.num_episodes == 1 and not summary.broken
    assert "1 of 2 shards are missing" in capsys.readouterr().out
