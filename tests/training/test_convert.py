"""The convert command: resuming after an interruption, the share of broken recordings,
instructions, messages.
"""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from convert_fixtures import check_frames, numbers, pictures, run
from rich.console import Console

from alam_core.data.lerobot import LeRobotDataset, LeRobotWriter
from alam_core.data.lerobot.layout import partial_name
from alam_core.errors import UserError
from alam_training.commands import convert as convert_module
from alam_training.commands.convert import RECORD, ConvertConfig, convert
from alam_training.converters.source import (
    BrokenEpisode,
    ForeignDataset,
    Recording,
    Request,
    SourceEpisode,
)

STEPS = 4


class Toy:
    """A source of ``count`` recordings; those in ``broken`` cannot be read, and reading one in
    ``stops`` is interrupted by Ctrl-C.
    """

    def __init__(
        self,
        count: int = 6,
        broken: tuple[int, ...] = (),
        stops: tuple[int, ...] = (),
        count_known: bool = True,
    ) -> None:
        self.count, self.broken, self.stops, self.count_known = count, broken, stops, count_known
        self.read_so_far: list[int] = []

    def __call__(self, request: Request) -> ForeignDataset:
        return ForeignDataset(
            "toy", request.fps or 7.0, self.count if self.count_known else None, self.recordings()
        )

    def recordings(self) -> Iterator[Recording]:
        for i in range(self.count):
            yield Recording(f"r{i}", lambda i=i: self.episode(i))  # type: ignore[misc]

    def episode(self, i: int) -> SourceEpisode:
        self.read_so_far.append(i)
        if i in self.stops:
            raise KeyboardInterrupt
        if i in self.broken:
            raise BrokenEpisode("it is cut short")
        names = ["a", "b"]
        return SourceEpisode(
            {"wrist": pictures(i, STEPS)},
            numbers(i, STEPS, 2),
            numbers(-i, STEPS, 2),
            names,
            names,
            f"task {i}" if i % 2 else "",
        )


def install(monkeypatch: pytest.MonkeyPatch, toy: Toy) -> Toy:
    monkeypatch.setitem(convert_module.OPENERS, "rosbag", toy)
    return toy


def config(folder: Path, **options: object) -> ConvertConfig:
    return ConvertConfig(source="rosbag", input=str(folder), output=str(folder / "out"), **options)  # type: ignore[arg-type]


def test_an_interrupt_while_the_data_set_is_closed_leaves_it_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    close = LeRobotWriter.close

    def interrupted(self: LeRobotWriter) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        close(self)

    install(monkeypatch, Toy())
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(LeRobotWriter, "close", interrupted)
        convert(config(tmp_path, max_episodes=3))
    assert convert(config(tmp_path, resume=True)).episodes == 6


def test_a_source_without_a_single_good_episode_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Endless(Toy):
        def episode(self, i: int) -> SourceEpisode:
            episode = super().episode(i)
            episode.state[0] = np.inf
            return episode

    install(monkeypatch, Endless())
    with pytest.raises(UserError, match="holds no episodes; the first: r0: .*not finite"):
        convert(config(tmp_path, max_broken=1.0))
    assert not list(tmp_path.iterdir())


def test_interrupted_runs_keep_whole_episodes_and_resume_to_the_same_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, Toy(stops=(3,)))
    first = convert(config(tmp_path))
    assert (first.episodes, first.finished) == (3, False)
    assert LeRobotDataset(tmp_path / "out").num_episodes == 3
    assert json.loads((tmp_path / "out" / RECORD).read_text())["finished"] is False
    toy = install(monkeypatch, Toy())
    second = convert(config(tmp_path, resume=True))
    assert toy.read_so_far == [3, 4, 5] and (second.episodes, second.frames, second.finished) == (
        6,
        24,
        True,
    )
    dataset = LeRobotDataset(tmp_path / "out")
    assert dataset.extras["recording"] == [f"r{i}" for i in range(6)]
    for e in range(6):
        np.testing.assert_array_equal(dataset.episode(e).state, numbers(e, STEPS, 2))
        check_frames(dataset, e, "wrist", pictures(e, STEPS))
    assert json.loads((tmp_path / "out" / RECORD).read_text())["finished"] is True
    assert (
        convert(config(tmp_path, resume=True)).episodes == 6
    )  # nothing is left to convert, so nothing is added


def test_resuming_needs_the_same_settings_and_a_data_set_of_this_script(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, Toy())
    convert(config(tmp_path, max_episodes=2))
    with pytest.raises(UserError, match="exists already; add --resume true"):
        convert(config(tmp_path))
    with pytest.raises(UserError, match="converted with fps = 0.0, not 5.0"):
        convert(config(tmp_path, resume=True, fps=5.0))
    assert convert(config(tmp_path, resume=True, max_episodes=3)).episodes == 3
    (tmp_path / "out" / RECORD).unlink()
    with pytest.raises(UserError, match="only data sets made by this script"):
        convert(config(tmp_path, resume=True))
    assert LeRobotDataset(tmp_path / "out").num_episodes == 3


@pytest.mark.parametrize("count_known", [True, False])
def test_broken_recordings_are_skipped_counted_and_named_up_to_a_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count_known: bool
) -> None:
    install(monkeypatch, Toy(10, broken=(2, 7), count_known=count_known))
    summary = convert(config(tmp_path, max_broken=0.2))
    assert summary.episodes == 8 and summary.broken == {
        "r2": "it is cut short",
        "r7": "it is cut short",
    }
    assert json.loads((tmp_path / "out" / RECORD).read_text())["skipped"] == summary.broken
    with pytest.raises(
        UserError,
        match=r"2 of 10 episodes .* than --max_broken 0.19; "
        "the first: r2: it is cut short; nothing is written",
    ):
        convert(ConvertConfig("rosbag", str(tmp_path), str(tmp_path / "other"), max_broken=0.19))
    assert not (tmp_path / "other").exists() and not (tmp_path / partial_name("other")).exists()


def test_a_source_without_a_readable_recording_stops_early(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy = install(monkeypatch, Toy(1000, broken=tuple(range(1000))))
    with pytest.raises(UserError, match="the first: r0: it is cut short"):
        convert(config(tmp_path))
    assert len(toy.read_so_far) == 3
    with pytest.raises(UserError, match="holds no episodes; the first: r0"):
        convert(config(tmp_path, max_broken=1.0))
    assert not (tmp_path / "out").exists()


def test_episodes_unlike_the_first_are_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Mixed(Toy):
        def episode(self, i: int) -> SourceEpisode:
            episode = super().episode(i)
            if i == 1:
                episode.images = {"wrist": pictures(i, STEPS, 32, 32)}
            if i == 2:
                episode.action = episode.action[:-1]
            if i == 3:
                episode.action_names = ["b", "a"]
            return episode

    install(monkeypatch, Mixed())
    summary = convert(config(tmp_path, max_broken=0.5))
    assert summary.episodes == 3 and list(summary.broken) == ["r1", "r2", "r3"]
    assert LeRobotDataset(tmp_path / "out").extras["recording"] == ["r0", "r4", "r5"]


def test_instructions_come_from_the_file_the_source_and_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, Toy(4))
    (tmp_path / "texts.json").write_text(json.dumps({"r1": "from the file"}))
    convert(config(tmp_path, task="from the line", instructions=str(tmp_path / "texts.json")))
    dataset = LeRobotDataset(tmp_path / "out")
    assert [dataset.episode(e).task for e in range(4)] == [
        "from the line",
        "from the file",
        "from the line",
        "task 3",
    ]
    assert (
        convert(ConvertConfig("rosbag", str(tmp_path), str(tmp_path / "bare"))).without_instruction
        == 2
    )
    for text in ("[1]", '{"r1": 2}', "{"):
        (tmp_path / "texts.json").write_text(text)
        with pytest.raises(UserError, match="texts.json"):
            convert(
                ConvertConfig(
                    "rosbag",
                    str(tmp_path),
                    str(tmp_path / "x"),
                    instructions=str(tmp_path / "texts.json"),
                )
            )


def test_max_episodes_limits_the_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy = install(monkeypatch, Toy(100, count_known=False))
    screen = io.StringIO()
    assert convert(config(tmp_path, max_episodes=2), Console(file=screen)).episodes == 2
    assert toy.read_so_far == [0, 1] and "2/2" in screen.getvalue()


@pytest.mark.parametrize(
    "options",
    [
        {"max_broken": 2.0},
        {"fps": -1.0},
        {"image_size": 4},
        {"views": {"a.b": "c"}},
        {"max_episodes": -1},
    ],
)
def test_settings_that_make_no_sense_are_refused(
    tmp_path: Path, options: dict[str, object]
) -> None:
    with pytest.raises(UserError):
        config(tmp_path, **options)


@contextlib.contextmanager
def command(*arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
    """training/convert.py as a process that reacts to Ctrl-C even if the test itself runs in the
    background.
    """
    process = subprocess.Popen(
        [sys.executable, "training/convert.py", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def write_calvin(folder: Path, frames: int, window: int) -> Path:
    """A CALVIN folder of many short annotated windows."""
    (folder / "lang_annotations").mkdir(parents=True)
    image = pictures(0, 1, 200, 200)[0]
    for n in range(frames):
        np.savez(
            folder / f"episode_{n:07d}.npz",
            rgb_static=image,
            robot_obs=numbers(0, 1, 15)[0],
            rel_actions=numbers(0, 1, 7)[0],
        )
    spans = [(first, first + window - 1) for first in range(0, frames, window)]
    annotations = {"language": {"ann": ["go"] * len(spans)}, "info": {"indx": spans}}
    np.save(folder / "lang_annotations/auto_lang_ann.npy", annotations, allow_pickle=True)  # type: ignore[arg-type]
    return folder


def test_the_command_prints_one_line_for_a_mistake_and_takes_views_as_flags(tmp_path: Path) -> None:
    folder = write_calvin(tmp_path / "in", 4, 2)
    with command(
        "--source", "calvin", "--input", tmp_path / "no", "--output", tmp_path / "out"
    ) as wrong:
        complaint = wrong.communicate(timeout=120)[1]
    assert (
        "does not exist" in complaint and len(complaint.splitlines()) == 1 and wrong.returncode == 2
    )
    with command(
        "--source",
        "calvin",
        "--input",
        folder,
        "--output",
        tmp_path / "out",
        "--views.wrist",
        "rgb_static",
    ) as right:
        said, complaint = right.communicate(timeout=120)
    assert right.returncode == 0 and "2 episodes, 4 frames, 0 skipped" in said, complaint
    assert LeRobotDataset(tmp_path / "out").views == ("wrist",)


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGKILL])
def test_ctrl_c_leaves_a_complete_data_set_and_kill_leaves_none(
    tmp_path: Path, kind: signal.Signals
) -> None:
    folder = write_calvin(tmp_path / "in", 6, 2)
    frame = folder / "episode_0000004.npz"
    whole = frame.read_bytes()
    frame.unlink()
    os.mkfifo(frame)  # reading the third window waits here for ever
    partial = tmp_path / partial_name("out")
    with command(
        "--source",
        "calvin",
        "--input",
        folder,
        "--output",
        tmp_path / "out",
        "--views.wrist",
        "rgb_static",
    ) as process:
        while not any(partial.rglob("*.parquet")):
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        process.send_signal(kind)
        said, _ = process.communicate(timeout=120)
    if kind == signal.SIGKILL:
        assert partial.exists() and not (tmp_path / "out").exists()
        with pytest.raises(UserError, match="interrupted or still goes on"):
            LeRobotDataset(tmp_path / "out")
    else:
        assert process.returncode == 130 and "--resume true" in said and not partial.exists()
        assert 1 <= LeRobotDataset(tmp_path / "out").num_episodes < 3
    frame.unlink()
    frame.write_bytes(whole)
    resume = kind == signal.SIGINT
    dataset, summary = run(
        "calvin", folder, tmp_path / "out", views={"wrist": "rgb_static"}, resume=resume
    )
    assert summary.finished and dataset.num_episodes == len(set(dataset.extras["recording"])) == 3
    assert dataset.frames(2, "wrist", [0, 1]).shape == (2, 200, 200, 3)
