"""LIBERO's and robomimic's HDF5 files, written by h5py, through the converter and back."""

import dataclasses
import json
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from convert_fixtures import LENGTHS, check_frames, numbers, pictures, run

from alam_core.errors import UserError
from alam_training.converters.libero import open_libero
from alam_training.converters.source import Request

TEXT = "put the black bowl on the plate"


def write_libero(path: Path, lengths: tuple[int, ...] = LENGTHS, first: int = 0) -> Path:
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["problem_info"] = json.dumps(
            {"problem_name": "x", "language_instruction": list(f'"{TEXT}"')}
        )
        data.attrs["env_args"] = json.dumps({"env_name": "x", "env_kwargs": {"control_freq": 25}})
        for e, steps in enumerate(lengths, start=first):
            demo = data.create_group(f"demo_{e}")
            demo["actions"] = numbers(e, steps, 7).astype(np.float64)
            demo["obs/ee_states"], demo["obs/gripper_states"] = (
                numbers(e, steps, 6),
                numbers(-e, steps, 2),
            )
            demo["obs/agentview_rgb"] = pictures(e, steps, 64, 64)[
                :, ::-1
            ]  # as LIBERO has them: upside down
            demo["obs/eye_in_hand_rgb"] = pictures(e + 1, steps, 48, 48)[:, ::-1]
    return path


def test_libero_images_are_upright_and_numbers_rate_and_instruction_are_kept(
    tmp_path: Path,
) -> None:
    (tmp_path / "in").mkdir()
    write_libero(tmp_path / "in" / "a_demo.hdf5")
    dataset, summary = run("libero", tmp_path / "in", tmp_path / "out")
    assert (summary.episodes, summary.broken, dataset.fps) == (3, {}, 25)
    assert (
        dataset.action_names == [f"actions_{i}" for i in range(7)]
        and dataset.state_names[-1] == "gripper_states_1"
    )
    for e, steps in enumerate(LENGTHS):
        arrays = dataset.episode(e)
        np.testing.assert_array_equal(arrays.action, numbers(e, steps, 7))
        np.testing.assert_array_equal(
            arrays.state, np.hstack([numbers(e, steps, 6), numbers(-e, steps, 2)])
        )
        assert arrays.task == TEXT
        check_frames(dataset, e, "third_person", pictures(e, steps, 64, 64))
        check_frames(dataset, e, "wrist", pictures(e + 1, steps, 48, 48))


def test_files_of_different_control_rates_are_refused_and_an_assumed_one_is_told(
    tmp_path: Path,
) -> None:
    (tmp_path / "in").mkdir()
    write_libero(tmp_path / "in/a.hdf5")
    with h5py.File(write_libero(tmp_path / "in/b.hdf5"), "a") as file:
        file["data"].attrs["env_args"] = json.dumps({"env_kwargs": {"control_freq": 10}})
    with pytest.raises(UserError, match=r"a\.hdf5: 25, b\.hdf5: 10 per second.*--fps"):
        run("libero", tmp_path / "in", tmp_path / "out")
    assert run("libero", tmp_path / "in", tmp_path / "given", fps=10.0)[0].fps == 10
    with h5py.File(tmp_path / "in/b.hdf5", "a") as file:
        del file["data"].attrs["env_args"]
    request = Request(tmp_path / "in", {}, [], [], "", 0, 0.0, "header", "")
    source = open_libero(request)
    assert source.fps == 25 and source.note.startswith("b.hdf5: no control rate is stated; 25 per")
    assert not open_libero(dataclasses.replace(request, fps=25.0)).note


def test_demonstrations_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    path = write_libero(
        tmp_path / "a.hdf5", (2,) * 3, first=9
    )  # as text, demo_10 would come before demo_9
    dataset, _ = run("libero", path, tmp_path / "out")
    assert dataset.extras["recording"] == ["a.hdf5/demo_9", "a.hdf5/demo_10", "a.hdf5/demo_11"]


def test_robomimic_images_are_not_flipped(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file["data/demo_0/actions"] = numbers(0, 4, 7)
        for name, width in (
            ("robot0_eef_pos", 3),
            ("robot0_eef_quat", 4),
            ("robot0_gripper_qpos", 2),
        ):
            file[f"data/demo_0/obs/{name}"] = numbers(0, 4, width)
        file["data/demo_0/obs/agentview_image"] = pictures(0, 4)
    dataset, summary = run("libero", tmp_path / "a.hdf5", tmp_path / "out", task="lift the cube")
    check_frames(dataset, 0, "third_person", pictures(0, 4))
    assert (
        dataset.views == ("third_person",)
        and dataset.fps == 20
        and dataset.episode(0).task == "lift the cube"
    )


def test_broken_demonstrations_are_skipped_and_named(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    write_libero(folder / "a.hdf5")
    cut = write_libero(folder / "b.hdf5").read_bytes()
    (folder / "b.hdf5").write_bytes(cut[: len(cut) // 2])
    with h5py.File(folder / "a.hdf5", "a") as file:
        file.create_group("data/demo_3")
        file["data/demo_3/actions"] = numbers(3, 4, 7)
        file.copy("data/demo_0", "data/demo_4")
        del file["data/demo_4/obs/ee_states"]
        file["data/demo_4/obs/ee_states"] = numbers(0, 2, 6)
        for key, values in file["data/demo_0/obs"].items():
            file[f"data/demo_5/obs/{key}"] = values[:0]
        file["data/demo_5/actions"] = numbers(0, 0, 7)
    dataset, summary = run("libero", folder, tmp_path / "out", max_broken=0.8)
    assert dataset.num_episodes == 3 and list(summary.broken) == [
        "a.hdf5/demo_3",
        "a.hdf5/demo_4",
        "a.hdf5/demo_5",
        "b.hdf5",
    ]
    reasons = list(summary.broken.values())
    assert "no images" in reasons[0] and "ee_states has 2 rows for 7 images" in reasons[1]
    assert "no frames" in reasons[2] and "truncated" in reasons[3]
    assert all("\n" not in reason for reason in reasons)
    assert summary.lost == 9  # b.hdf5 counts as many as a.hdf5 has


def test_a_broken_file_counts_as_the_episodes_that_a_file_has(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in "abc":
        write_libero(folder / f"{name}.hdf5", (2,) * 6)
    (folder / "b.hdf5").write_bytes((folder / "b.hdf5").read_bytes()[:5000])
    with pytest.raises(UserError, match=r"6 of 18 episodes .* larger share than --max_broken 0.1"):
        run("libero", folder, tmp_path / "out", max_broken=0.1)
    _, summary = run("libero", folder, tmp_path / "out", max_broken=0.34)
    assert (summary.episodes, summary.lost, list(summary.broken)) == (12, 6, ["b.hdf5"])


@pytest.mark.parametrize(
    ("lengths", "bad", "lost"),
    [
        ({"b": 6, "c": 6}, "a.hdf5", 6),  # before the number of episodes in a file is known
        ({"a": 1, "b": 5}, "c.hdf5", 3),  # the mean
        ({"a": 6}, "b.hdf5", 6),
        ({"a": 6}, "sub/dir.h5", 6),
    ],
)
@pytest.mark.parametrize("kind", ["empty", "other layout", "link"])
def test_a_file_that_cannot_be_read_counts_wherever_it_lies(
    tmp_path: Path, lengths: dict[str, int], bad: str, lost: int, kind: str
) -> None:
    folder = tmp_path / "in"
    (folder / bad).parent.mkdir(parents=True)
    (folder / "a_folder.hdf5").mkdir()  # is no file
    for name, episodes in lengths.items():
        write_libero(folder / f"{name}.hdf5", (2,) * episodes)
    if kind == "empty":
        (folder / bad).touch()
    elif kind == "link":
        (folder / bad).symlink_to(tmp_path / "nowhere")
    else:
        with h5py.File(folder / bad, "w") as file:
            file["steps"] = np.zeros(3)
    _, summary = run("libero", folder, tmp_path / "out", max_broken=0.5)
    assert (summary.episodes, summary.lost) == (sum(lengths.values()), lost)
    assert list(summary.broken) == [bad] and len(summary.broken[bad]) < 250


def test_another_layout_is_told_by_what_is_there(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "aloha.hdf5", "w") as file:
        file["action"], file["observations/qpos"] = numbers(0, 4, 14), numbers(0, 4, 14)
    wanted = r"aloha.hdf5 is not in the layout of LIBERO .*; it has: action, observations; convert"
    with pytest.raises(UserError, match=wanted) as caught:
        run("libero", tmp_path, tmp_path / "out")
    assert "\n" not in str(caught.value)
    write_libero(tmp_path / "libero.hdf5")
    _, summary = run("libero", tmp_path, tmp_path / "out", max_broken=0.5)
    assert (summary.episodes, summary.lost) == (3, 3)
    assert "it has: action, observations" in summary.broken["aloha.hdf5"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\n", "is only a pointer .* 'git lfs pull'"),
        (b"<!DOCTYPE html>", "a.hdf5 is a web page, not demonstrations"),
        (b"", "a.hdf5 is empty: copy it again"),
        (b"PK\x03\x04 a zip file", "no HDF5 file .* copy it again"),
        ({}, "it has: none"),
        ({"data": np.zeros(3)}, "it has: data"),
        ({"data/demo_0": np.zeros(3)}, "demo_0: is an array, not a group"),
        ({"data/demo_0/obs": np.zeros(3)}, "demo_0: has no images"),
    ],
)
def test_files_that_hold_no_demonstrations(
    tmp_path: Path, content: bytes | dict[str, np.ndarray], message: str
) -> None:
    if isinstance(content, bytes):
        (tmp_path / "a.hdf5").write_bytes(content)
    else:
        with h5py.File(tmp_path / "a.hdf5", "w") as file:
            for name, values in content.items():
                file[name] = values
    with pytest.raises(UserError, match=message):
        run("libero", tmp_path, tmp_path / "out")


def test_a_missing_key_stops_the_run_and_lists_the_keys(tmp_path: Path) -> None:
    path = write_libero(tmp_path / "a.hdf5")
    with pytest.raises(UserError, match=r"demo_0: has no 'speed'; it has: .*ee_states") as caught:
        run("libero", path, tmp_path / "out", state=["speed"])
    assert "\n" not in str(caught.value) and list(tmp_path.iterdir()) == [path]


def test_a_folder_without_hdf5_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no .hdf5 files"):
        run("libero", tmp_path, tmp_path / "out")


def test_a_missing_package_is_named_with_its_pip_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(UserError, match="pip install h5py"):
        run("libero", tmp_path, tmp_path / "out")
