"""Folders of video: every container reads alike, any frame can be reached from anywhere, and broken
files are named.
"""

import pickle
from pathlib import Path

import numpy as np
import pytest
from video_fixtures import CODECS, numbers, write_video

from alam_core.data.faults import find_faults
from alam_core.data.video import VideoReader
from alam_core.data.video.folder import VideoFolder
from alam_core.data.video.index import CACHE, inspect_video, inspect_videos
from alam_core.errors import UserError


@pytest.mark.parametrize("b_frames", [0, 2])
@pytest.mark.parametrize("suffix", sorted(CODECS))
def test_every_container_gives_each_frame_independent_of_earlier_reads(
    suffix: str, b_frames: int, tmp_path: Path
) -> None:
    if b_frames and suffix in (".webm", ".avi"):
        pytest.skip("its codec has no B frames here")
    path = tmp_path / f"x{suffix}"
    write_video(path, 40, b_frames=b_frames)
    facts = inspect_video(path)
    assert (facts.frames, facts.fps, facts.fault) == (40, 10.0, "")
    assert VideoFolder(tmp_path).episode_length(0) == 40
    whole = VideoReader(path).read(range(40))
    assert numbers(whole) == list(range(40))
    reader, rng = VideoReader(path), np.random.default_rng(0)
    for _ in range(40):
        asked = rng.integers(0, 40, rng.integers(1, 5)).tolist()
        assert np.array_equal(reader.read(asked), whole[asked])


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_variable_rate_becomes_a_constant_one(suffix: str, tmp_path: Path) -> None:
    """Ten frames, the middle ones shown twice as long: read by time, at the file's mean rate."""
    times = [0, 1, 2, 3, 5, 7, 9, 11, 12, 13]
    write_video(tmp_path / f"x{suffix}", 10, times=times)
    folder = VideoFolder(tmp_path)
    reader = VideoReader(tmp_path / f"x{suffix}")
    length = folder.episode_length(0)
    shown = [
        max(i for i, time in enumerate(times) if time <= (n + 0.4) / reader.fps * 10 + 1e-6)
        for n in range(length)
    ]
    assert numbers(folder.frames(0, "video", range(length))) == shown
    assert [numbers(folder.frames(0, "video", [n]))[0] for n in reversed(range(length))] == shown[
        ::-1
    ]


def test_nested_folders_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name, frames in {
        "b/two.mkv": 7,
        "a/deep/one.MP4": 5,
        "c.avi": 9,
        "a/.hidden/no.mp4": 4,
        ".no.mp4": 3,
    }.items():
        write_video((tmp_path / name).with_suffix(Path(name).suffix.lower()), frames)
    (tmp_path / "a/deep/one.mp4").rename(tmp_path / "a/deep/one.MP4")
    (tmp_path / "notes.txt").write_text("no video")
    folder = VideoFolder(tmp_path)
    assert folder.names == ["a/deep/one.MP4", "b/two.mkv", "c.avi"] and folder.views == ("video",)
    assert [folder.episode_length(e) for e in range(3)] == [5, 7, 9] and folder.num_frames == 21
    assert numbers(folder.frames(1, "video", [6, 0])) == [6, 0]
    again = pickle.loads(pickle.dumps(folder))
    assert np.array_equal(again.frames(2, "video", [3]), folder.frames(2, "video", [3]))
    with pytest.raises(IndexError):
        folder.frames(0, "video", [5])
    with pytest.raises(UserError, match="its only view is called 'video'"):
        folder.frames(0, "wrist", [0])


def test_a_folder_without_videos_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no video file"):
        VideoFolder(tmp_path)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_broken_files_keep_their_number_and_are_named(suffix: str, tmp_path: Path) -> None:
    names = [f"{name}{suffix}" for name in ("a", "b_cut", "c_empty", "d_text", "e")]
    for name in names:
        write_video(tmp_path / name, 12)
    content = (tmp_path / names[1]).read_bytes()
    (tmp_path / names[1]).write_bytes(content[: len(content) * 2 // 3])
    (tmp_path / names[2]).write_bytes(b"")
    (tmp_path / names[3]).write_text("no video at all")
    folder = VideoFolder(tmp_path)
    faults = find_faults(folder, "video")
    assert set(faults) == {1, 2, 3} and folder.num_episodes == 5
    assert all(names[e] in why for e, why in faults.items())
    assert numbers(folder.frames(4, "video", [11])) == [11]


def test_a_video_truncated_after_its_index_is_found_without_decoding(tmp_path: Path) -> None:
    """Its index, at the file's head, still promises every frame."""
    from alam_core.data.video import VideoWriter

    writer = VideoWriter(tmp_path / "x.mp4", 10, 32, 32)
    writer.add(np.random.default_rng(0).integers(0, 256, (30, 32, 32, 3), np.uint8))
    writer.close()
    content = (tmp_path / "x.mp4").read_bytes()
    (tmp_path / "x.mp4").write_bytes(content[: len(content) // 2])
    facts = inspect_video(tmp_path / "x.mp4")
    assert 5 < facts.frames < 25 and f"{facts.frames} of 30" in facts.fault
    reader = VideoReader(tmp_path / "x.mp4", 10)
    assert len(reader.read(range(facts.frames))) == facts.frames
    for number in (facts.frames, 29):
        with pytest.raises(UserError, match=r"x\.mp4"):
            reader.read([number])
    assert len(reader.read([0])) == 1  # and it still reads what is there


def test_files_are_inspected_once_and_again_after_a_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, frames in {"a.mp4": 5, "b.mp4": 6}.items():
        write_video(tmp_path / name, frames)
    opened: list[str] = []

    def counting(path: Path) -> object:
        opened.append(path.name)
        return inspect_video(path)

    monkeypatch.setattr("alam_core.data.video.index.inspect_video", counting)
    names = ["a.mp4", "b.mp4", "gone.mp4"]
    first = inspect_videos(tmp_path, names)
    assert [fact.frames for fact in first] == [5, 6, 0] and "missing" in first[2].fault
    opened.clear()
    assert inspect_videos(tmp_path, names) == first and opened == ["gone.mp4"]
    write_video(tmp_path / "b.mp4", 9)
    opened.clear()
    assert [fact.frames for fact in inspect_videos(tmp_path, names)] == [5, 9, 0] and sorted(
        opened
    ) == ["b.mp4", "gone.mp4"]
    (tmp_path / CACHE).write_text("{broken")
    assert [fact.frames for fact in inspect_videos(tmp_path, names)] == [5, 9, 0]
