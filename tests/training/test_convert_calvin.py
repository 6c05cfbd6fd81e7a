"""CALVIN's folders, written by numpy, through the converter and back."""

import os
from pathlib import Path

import numpy as np
import pytest
from convert_fixtures import check_frames, numbers, picture, run

from alam_core.errors import UserError
from alam_training.converters import calvin

WINDOWS = [(3, 6, "open the drawer"), (12, 14, "turn on the light")]


def write_calvin(folder: Path, annotated: bool = True, indices: object = None) -> Path:
    """Frames 0 to 8 and 10 to 17, as two recordings."""
    folder.mkdir(exist_ok=True)
    for n in (*range(9), *range(10, 18)):
        np.savez_compressed(
            folder / f"episode_{n:07d}.npz",
            rgb_static=picture(0, n % 10),
            rgb_gripper=picture(1, n % 10, 40, 40),
            robot_obs=numbers(n, 1, 15)[0].astype(np.float64),
            rel_actions=numbers(n, 1, 7)[0].astype(np.float64) / 8,
            actions=numbers(n, 1, 7)[0].astype(np.float64),
            depth_static=np.zeros((48, 64), np.float32),
        )
    np.save(folder / "ep_start_end_ids.npy", np.array([[0, 8], [10, 17]]))
    if annotated:
        (folder / "lang_annotations").mkdir(exist_ok=True)
        language = {
            "ann": [text for *_, text in WINDOWS],
            "task": ["a", "b"],
            "emb": np.zeros((2, 1, 384), np.float32),
        }
        spans = indices if indices is not None else [(first, last) for first, last, _ in WINDOWS]
        annotations = {"language": language, "info": {"episodes": [], "indx": spans}}
        np.save(folder / "lang_annotations/auto_lang_ann.npy", annotations, allow_pickle=True)  # type: ignore[arg-type]
    return folder


@pytest.mark.parametrize(
    "indices",
    [
        None,
        np.array([[3, 6], [12, 14]]),
        [(np.int64(3), np.int64(6)), (np.int64(12), np.int64(14))],
    ],
    ids=["tuples", "array", "numpy numbers"],
)
def test_annotated_windows_become_episodes_with_their_instruction(
    tmp_path: Path, indices: object
) -> None:
    dataset, summary = run(
        "calvin", write_calvin(tmp_path / "training", indices=indices), tmp_path / "out"
    )
    assert (summary.episodes, summary.broken, dataset.fps) == (2, {}, 30)
    for e, (first, last, text) in enumerate(WINDOWS):
        steps = range(first, last + 1)
        arrays = dataset.episode(e)
        assert arrays.task == text
        np.testing.assert_array_equal(
            arrays.state, np.concatenate([numbers(n, 1, 15) for n in steps])
        )
        np.testing.assert_array_equal(
            arrays.action, np.concatenate([numbers(n, 1, 7) / 8 for n in steps])
        )
        check_frames(dataset, e, "third_person", np.stack([picture(0, n % 10) for n in steps]))
        check_frames(dataset, e, "wrist", np.stack([picture(1, n % 10, 40, 40) for n in steps]))


def test_play_is_cut_into_pieces_that_contain_every_frame_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calvin, "PIECE", 4)
    dataset, summary = run(
        "calvin",
        write_calvin(tmp_path / "training"),
        tmp_path / "out",
        part="play",
        action=["actions"],
    )
    assert [dataset.episode_length(e) for e in range(5)] == [
        4,
        4,
        1,
        4,
        4,
    ] and summary.without_instruction == 5
    action = np.concatenate([dataset.episode(e).action for e in range(5)])
    np.testing.assert_array_equal(
        action, np.concatenate([numbers(n, 1, 7) for n in (*range(9), *range(10, 18))])
    )


def test_missing_and_broken_frames_skip_their_window_only(tmp_path: Path) -> None:
    folder = write_calvin(tmp_path / "training")
    whole = (folder / "episode_0000013.npz").read_bytes()
    (folder / "episode_0000013.npz").write_bytes(whole[: len(whole) // 2])
    dataset, summary = run("calvin", folder, tmp_path / "out", max_broken=0.5)
    assert dataset.num_episodes == 1 and dataset.episode(0).task == "open the drawer"
    assert list(summary.broken) == ["language_000001_12-14"]
    assert "'episode_0000013.npz' cannot be read" in summary.broken["language_000001_12-14"]
    (folder / "episode_0000004.npz").unlink()
    with pytest.raises(
        UserError,
        match=r"2 of 2 episodes .* cannot be read.*"
        "'episode_0000004.npz' is missing; nothing is written",
    ):
        run("calvin", folder, tmp_path / "other", max_broken=0.5)
    assert not (tmp_path / "other").exists()


class Harm:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


def test_annotations_that_name_code_are_refused_without_running_it(tmp_path: Path) -> None:
    folder = write_calvin(tmp_path / "training")
    harm = tmp_path / "harm"
    np.save(folder / "lang_annotations/auto_lang_ann.npy", np.array(Harm(harm)), allow_pickle=True)
    with pytest.raises(UserError, match="mkdir, which is not allowed"):
        run("calvin", folder, tmp_path / "out")
    assert not harm.exists()


def test_a_folder_without_calvin_data_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no episode_"):
        run("calvin", tmp_path, tmp_path / "out")
    folder = write_calvin(tmp_path / "training", annotated=False)
    with pytest.raises(UserError, match="--part play"):
        run("calvin", folder, tmp_path / "out", part="language")
    (folder / "ep_start_end_ids.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(UserError, match="ep_start_end_ids.npy' cannot be read"):
        run("calvin", folder, tmp_path / "out")
