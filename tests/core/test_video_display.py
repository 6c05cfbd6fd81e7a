"""Videos are shown as their files say: turned, mirrored, with square pixels and the right colours;
what cannot be shown as colours is refused by name.
"""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from video_fixtures import numbers, picture, write_video

from alam_core.data.faults import find_faults
from alam_core.data.frames import frame_store
from alam_core.data.video import VideoFolder, VideoReader
from alam_core.data.video.index import inspect_video
from alam_core.errors import UserError

Prepare = Callable[[Any], None]


def turned(degrees: float, mirrored: bool = False) -> Prepare:
    return lambda stream: stream.set_display_rotation(degrees, hflip=mirrored)


def pixels(shape: Fraction) -> Prepare:
    return lambda stream: setattr(stream.codec_context, "sample_aspect_ratio", shape)


def transfer(number: int) -> Prepare:
    return lambda stream: setattr(stream.codec_context, "color_trc", number)


def close(image: np.ndarray, wanted: np.ndarray) -> bool:
    return image.shape == wanted.shape and float(np.abs(image.astype(int) - wanted).max()) < 16


@pytest.mark.parametrize(
    ("suffix", "prepare", "shown"),
    [
        (".mov", turned(-90), lambda image: np.rot90(image, -1)),  # a phone held upright
        (".mov", turned(90), np.rot90),
        (".mkv", turned(90), np.rot90),
        (".mp4", turned(180), lambda image: image[::-1, ::-1]),
        (".mp4", turned(0, True), lambda image: image[:, ::-1]),  # a front camera
        (".mp4", turned(90, True), lambda image: np.rot90(image)[:, ::-1]),
    ],
    ids=["mov -90", "mov 90", "mkv 90", "180", "mirrored", "turned and mirrored"],
)
def test_frames_are_turned_and_mirrored_as_the_file_says(
    suffix: str, prepare: Prepare, shown: Callable[[np.ndarray], np.ndarray], tmp_path: Path
) -> None:
    write_video(tmp_path / f"x{suffix}", 12, prepare=prepare)
    folder = VideoFolder(tmp_path)
    assert find_faults(folder, "video") == {}
    frames = folder.frames(0, "video", [11, 2, 11])
    for frame, t in zip(frames, (11, 2, 11), strict=True):
        assert close(frame, shown(picture(t)))


def test_pixels_become_square(tmp_path: Path) -> None:
    for name, shape in {"a": Fraction(2), "b": Fraction(1, 2), "c": Fraction(1)}.items():
        write_video(tmp_path / f"{name}.mp4", 3, prepare=pixels(shape))
    folder = VideoFolder(tmp_path)
    sizes = [folder.frames(e, "video", [0]).shape[1:3] for e in range(3)]
    assert sizes == [(32, 96), (64, 48), (32, 48)]
    assert [numbers(folder.frames(e, "video", [2])) for e in range(3)] == [[2]] * 3


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuvj420p", "yuv444p10le", "gray"])
def test_colour_range_and_depth_are_honoured(pix_fmt: str, tmp_path: Path) -> None:
    path = tmp_path / ("x.mkv" if pix_fmt == "gray" else "x.mp4")
    write_video(path, 30, pix_fmt=pix_fmt)
    assert inspect_video(path).fault == ""
    assert numbers(VideoReader(path).read([29, 0])) == [29, 0]


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("matrix", [1, 5, 9], ids=["BT.709", "BT.601", "BT.2020"])
def test_colours_are_made_with_the_matrix_and_range_that_the_file_states(
    matrix: int, full: bool, tmp_path: Path
) -> None:
    stored = 2 if full else 1
    image = np.full((32, 48, 3), (200, 40, 30), np.uint8)
    with av.open(str(tmp_path / "x.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": "5"})
        stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
        stream.codec_context.colorspace, stream.codec_context.color_range = matrix, stored
        frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(
            format="yuv420p", dst_colorspace=matrix, dst_color_range=stored
        )
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    shown = VideoFolder(tmp_path).frames(0, "video", [0])[0]
    assert np.abs(shown.astype(int) - image).max() <= 4  # the other range is off by 10


def test_sound_before_the_video_is_passed_over(tmp_path: Path) -> None:
    """As phones write it, before the video."""
    with av.open(str(tmp_path / "x.mp4"), "w") as container:
        sound = container.add_stream("aac", rate=44100)
        stream = container.add_stream("libx264", rate=10, options={"crf": "5"})
        stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
        for t in range(12):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(t), format="rgb24")))
        container.mux(stream.encode())
        silence = np.zeros((1, 1024), np.float32)
        for i in range(52):
            frame = av.AudioFrame.from_ndarray(silence, format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 44100, 1024 * i
            container.mux(sound.encode(frame))
        container.mux(sound.encode())
    folder = VideoFolder(tmp_path)
    assert find_faults(folder, "video") == {} and folder.episode_length(0) == 12
    assert numbers(folder.frames(0, "video", [11, 0])) == [11, 0]


@pytest.mark.parametrize(
    ("pix_fmt", "prepare", "words"),
    [
        ("yuv420p", turned(45), "turned by 45 degrees"),
        ("yuv420p10le", transfer(16), r"high dynamic range \(PQ\)"),
        ("yuv420p10le", transfer(18), r"high dynamic range \(HLG\)"),
        ("gray12le", lambda stream: None, r"12-bit grey levels \(gray12le\), such as depth"),
        ("gray16le", lambda stream: None, r"16-bit grey levels"),
    ],
)
def test_what_cannot_be_shown_is_named_before_training(
    pix_fmt: str, prepare: Prepare, words: str, tmp_path: Path
) -> None:
    name = "x.mkv" if pix_fmt.startswith("gray") else "x.mov"
    write_video(tmp_path / name, 5, pix_fmt=pix_fmt, prepare=prepare)
    write_video(tmp_path / "y.mp4", 5)
    folder = VideoFolder(tmp_path)
    (why,) = find_faults(folder, "video").values()
    with pytest.raises(UserError, match=words) as refused:
        VideoReader(tmp_path / name).read([0])
    assert str(refused.value) == why and name in why


def test_frames_decoded_before_they_were_turned_are_decoded_again(tmp_path: Path) -> None:
    write_video(tmp_path / "x.mp4", 8)
    before = frame_store(VideoFolder(tmp_path), "video", 8).array.copy()
    write_video(tmp_path / "x.mp4", 8, prepare=turned(180))
    after = frame_store(VideoFolder(tmp_path), "video", 8).array
    assert np.abs(after[:, ::-1, ::-1].astype(int) - before).max() < 8
