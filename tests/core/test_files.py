"""Atomic replacement of files and folders, and locks on folders."""

import errno
import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from alam_core import files
from alam_core.errors import UserError
from alam_core.files import (
    lock_folder,
    locked_folder,
    replacing_file,
    replacing_folder,
    temporaries,
    write_json,
)

# Replaces a file or a folder again and again; each version is the same number in many places.
WRITER = """
import sys
from pathlib import Path
from alam_core.files import replacing_file, replacing_folder

kind, target = sys.argv[1], Path(sys.argv[2])
print("ready", flush=True)
n = 0
while True:
    n += 1
    if kind == "file":
        with replacing_file(target) as temporary:
            temporary.write_text(f"{n}\\n" * 2000)
    else:
        with replacing_folder(target) as temporary:
            for i in range(8):
                (temporary / str(i)).write_text(str(n))
"""


@pytest.fixture(params=[0o022, 0o027, 0o077], ids=["umask 022", "umask 027", "umask 077"])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_at_the_end_of_the_block(tmp_path: Path) -> None:
    target = tmp_path / "film.mp4"
    target.write_text("old")
    with replacing_file(target) as temporary:
        assert temporary.suffix == ".mp4" and temporaries(target) == [temporary]
        temporary.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new" and names(tmp_path) == ["film.mp4"]


def test_a_folder_is_replaced_at_the_end_of_the_block(tmp_path: Path) -> None:
    target = tmp_path / "model"
    for content in ("old", "new"):
        with replacing_folder(target) as temporary:
            (temporary / content).write_text(content)
            (temporary / "inner").mkdir()
    assert names(target) == ["inner", "new"] and names(tmp_path) == ["model"]


def test_without_exchange_a_folder_is_replaced_by_two_renames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_exchange", lambda one, other: False)
    test_a_folder_is_replaced_at_the_end_of_the_block(tmp_path)


def test_a_link_to_a_folder_is_replaced_and_its_target_left_alone(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "kept").touch()
    (tmp_path / "model").symlink_to("elsewhere")
    with replacing_folder(tmp_path / "model") as temporary:
        (temporary / "new").touch()
    assert names(tmp_path) == ["elsewhere", "model"] and names(tmp_path / "model") == ["new"]
    assert names(tmp_path / "elsewhere") == ["kept"]


@pytest.mark.parametrize("kind", ["file", "dangling link"])
@pytest.mark.parametrize("exchange", [True, False])
def test_a_folder_replaces_a_file_or_a_dangling_link(
    tmp_path: Path, kind: str, exchange: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not exchange:
        monkeypatch.setattr(files, "_exchange", lambda one, other: False)
    if kind == "file":
        (tmp_path / "model").touch()
    else:
        (tmp_path / "model").symlink_to("nowhere")
    with replacing_folder(tmp_path / "model") as temporary:
        (temporary / "new").touch()
    assert names(tmp_path) == ["model"] and names(tmp_path / "model") == ["new"]


@pytest.mark.parametrize("path", [".", "..", "inner/..", "/"])
def test_the_working_directory_is_not_replaced(
    tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with (
        pytest.raises(UserError, match="working directory .* give a folder inside it"),
        replacing_folder(path),
    ):
        pass
    assert not names(tmp_path)


def test_an_error_names_the_file_that_is_replaced_not_the_temporary_one(tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")  # as "write" raises it
    with pytest.raises(OSError) as error, replacing_file(tmp_path / "a.json"):
        raise full
    assert (error.value.errno, error.value.filename) == (errno.ENOSPC, str(tmp_path / "a.json"))
    with pytest.raises(OSError) as error, replacing_folder(tmp_path / "m") as temporary:
        (temporary / ("x" * 300)).touch()
    assert error.value.filename == str(tmp_path / "m")
    with pytest.raises(OSError) as error, replacing_file(tmp_path / "a.json"):
        (tmp_path / "another").read_text()
    assert error.value.filename == str(tmp_path / "another") and not names(tmp_path)


def test_links_in_a_folder_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").touch(0o600)
    with replacing_folder(tmp_path / "model") as temporary:
        (temporary / "link").symlink_to(tmp_path / "elsewhere")
        (temporary / "dangling").symlink_to("nowhere")
    assert mode(tmp_path / "elsewhere") == 0o600
    assert names(tmp_path / "model") == ["dangling", "link"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failure_leaves_the_old_content_and_nothing_else(
    tmp_path: Path, error: type[BaseException]
) -> None:
    write_json(tmp_path / "file", 1)
    with replacing_folder(tmp_path / "folder") as temporary:
        write_json(temporary / "file", 1)
    with pytest.raises(error), replacing_file(tmp_path / "file") as temporary:
        temporary.write_text("half of")
        raise error
    with pytest.raises(error), replacing_folder(tmp_path / "folder") as temporary:
        (temporary / "half").touch()
        raise error
    assert names(tmp_path) == ["file", "folder"] and names(tmp_path / "folder") == ["file"]
    assert json.loads((tmp_path / "file").read_text()) == 1


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_writer_killed_at_any_moment_leaves_the_old_content_or_the_new(
    tmp_path: Path, kind: str
) -> None:
    target = tmp_path / "target"
    for kill in range(6):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, kind, str(target)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        deadline = time.monotonic() + 30
        while not target.exists() and time.monotonic() < deadline:
            pass
        seen = 0
        stop = time.monotonic() + 0.02 * (kill + 1)
        while time.monotonic() < stop:  # a reader meanwhile finds the whole of one version
            if kind == "file":
                lines = target.read_text().splitlines()
                assert len(lines) == 2000 and len(set(lines)) == 1
                seen += 1
            else:
                assert target.is_dir()  # it exists at every moment
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        assert kind == "folder" or seen
        if kind == "file":
            lines = target.read_text().splitlines()
            assert len(lines) == 2000 and len(set(lines)) == 1
        else:
            assert len({file.read_text() for file in target.iterdir()}) == 1
            assert names(target) == [str(i) for i in range(8)]
        assert set(names(tmp_path)) <= {"target", *(path.name for path in temporaries(target))}


def test_content_reaches_the_disk_before_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    fsync, replace = os.fsync, os.replace

    def noted_fsync(descriptor: int) -> None:
        name = Path(os.readlink(f"/proc/self/fd/{descriptor}")).name
        done.append("flush temporary" if ".tmp" in name else f"flush {name}")
        fsync(descriptor)

    def noted_replace(source: str | Path, target: str | Path) -> None:
        done.append(f"replace {Path(target).name}")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    write_json(tmp_path / "file", 1)
    assert done == ["flush temporary", "replace file", f"flush {tmp_path.name}"]
    done.clear()
    with replacing_folder(tmp_path / "folder") as temporary:
        (temporary / "inner").touch()
    assert done == ["flush inner", "flush temporary", "replace folder", f"flush {tmp_path.name}"]


def test_permissions_follow_the_umask(tmp_path: Path, umask: int) -> None:
    with replacing_file(tmp_path / "file") as temporary:
        temporary.unlink()
        os.close(os.open(temporary, os.O_CREAT, 0o600))  # as some libraries write their files
    with replacing_folder(tmp_path / "folder") as temporary:
        os.close(os.open(temporary / "private", os.O_CREAT, 0o600))
        (temporary / "inner").mkdir(mode=0o700)
    assert mode(tmp_path / "file") == 0o666 & ~umask
    assert mode(tmp_path / "folder" / "private") == 0o666 & ~umask
    assert mode(tmp_path / "folder") == mode(tmp_path / "folder" / "inner") == 0o777 & ~umask


def test_temporaries_are_those_of_one_target(tmp_path: Path) -> None:
    with replacing_file(tmp_path / "a[1].json") as one, replacing_file(tmp_path / "a1.json"):
        assert temporaries(tmp_path / "a[1].json") == [one]
    assert temporaries(tmp_path / "a[1].json") == []


def test_a_locked_folder_is_refused_until_the_lock_is_released(tmp_path: Path) -> None:
    with (
        locked_folder(tmp_path, "training in"),
        pytest.raises(UserError, match="another process is training in"),
    ):
        lock_folder(tmp_path, "training in")
    os.close(lock_folder(tmp_path, "training in"))
    assert not names(tmp_path)
    with pytest.raises(OSError):
        lock_folder(tmp_path / "missing", "training in")
