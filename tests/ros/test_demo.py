"""The demo: its video can be decoded and shows the frames recorded; its arguments are checked
before anything starts.
"""

from pathlib import Path

import numpy as np
import pytest

from alam_core.errors import UserError
from alam_demo import demo
from alam_demo.film import FilmFrame, write_film


def film_frames(count: int, views: tuple[str, ...] = ("third_person", "wrist")) -> list[FilmFrame]:
    rng = np.random.default_rng(0)
    found = []
    for i in range(count):
        images = {
            view: np.full((48, 48, 3), 40 * (k + 1), np.uint8) for k, view in enumerate(views)
        }
        observed = {view: rng.standard_normal(12) for view in views} if i else {}
        predicted = {view: rng.standard_normal((16, 12)) for view in views} if i > 2 else {}
        found.append(FilmFrame(i / 10, images, observed, predicted))
    return found


def frames_of(path: Path) -> list[np.ndarray]:
    import av

    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_the_video_has_every_frame_and_a_pause_after_each_episode(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "demo.mp4"
    write_film(path, [("first", True, film_frames(7)), ("second", False, film_frames(4))], fps=10.0)
    frames = frames_of(path)
    assert len(frames) == (7 - 1 + 10) + (4 - 1 + 10)
    assert list(path.parent.iterdir()) == [path]  # no temporary file is left
    third_person, wrist = frames[3][150, 128], frames[3][150, 256 + 128]
    assert (
        np.abs(third_person.astype(int) - 40).max() < 8 and np.abs(wrist.astype(int) - 80).max() < 8
    )
    assert np.abs(frames[0].astype(int) - frames[5]).max() > 100  # the path has moved on


def test_a_video_without_latents_and_one_without_episodes(tmp_path: Path) -> None:
    bare = [FilmFrame(frame.time, frame.images) for frame in film_frames(3)]
    write_film(tmp_path / "bare.mp4", [("no latents", True, bare)], fps=10.0)
    assert len(frames_of(tmp_path / "bare.mp4")) == 12
    write_film(tmp_path / "none.mp4", [("nothing", False, [])], fps=10.0)
    assert not (tmp_path / "none.mp4").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["episodes:=0"], "episodes:=0 is not between"),
        (["episode:=3"], "no argument 'episode'"),
        (["sim:=false"], "alam up piper sim:=false"),
        (["result:=latency_ros"], "needs realtime:=true"),
        (["checkpoint:=nowhere"], "no folder 'nowhere'"),
    ],
)
def test_wrong_arguments_are_reported_before_anything_starts(words: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said.replace("(", r"\(")):
        demo.main(words)


def test_help_names_every_argument(capsys: pytest.CaptureFixture[str]) -> None:
    assert demo.main(["--help"]) == 0
    printed = capsys.readouterr().out
    for argument in demo.DEMO.arguments:
        assert f"{argument.name}:=" in printed
