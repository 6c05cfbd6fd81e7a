"""Errors in the words of the user: which ones are explained, and how long they become."""

import errno
import os
import re
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from alam_core.errors import UserError, explain, listing, one_line, run_main


def fails(error: BaseException) -> Callable[[], int]:
    def main() -> int:
        raise error

    return main


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (errno.ENOSPC, "No space left on device; free some space"),
        (errno.EDQUOT, "quota exceeded; remove some files of yours"),
        (errno.EROFS, "Read-only file system; choose a folder that can be written to"),
        (errno.EACCES, "Permission denied; change its permissions"),
        (errno.ENAMETOOLONG, "File name too long; choose a shorter name"),
        (errno.EMFILE, "ulimit -n"),
    ],
)
def test_an_error_of_the_machine_is_one_line_and_code_2(
    code: int, advice: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run_main(fails(OSError(code, os.strerror(code), "runs/model")))
    line = capsys.readouterr().err
    assert ended.value.code == 2 and line.count("\n") == 1
    assert line.startswith("error: cannot read or write 'runs/model': ") and advice in line


def test_too_little_memory_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run_main(fails(MemoryError("Unable to allocate 9 GiB")))
    line = capsys.readouterr().err
    assert ended.value.code == 2 and line.count("\n") == 1
    assert "too little memory (Unable to allocate 9 GiB)" in line


@pytest.mark.parametrize("error", [KeyError("x"), FileNotFoundError(2, "No such file", "x")])
def test_a_bug_keeps_its_trace(error: Exception) -> None:
    with pytest.raises(type(error)):
        run_main(fails(error))
    assert explain(error) is None


def test_a_thread_of_a_library_prints_one_line_too(capsys: pytest.CaptureFixture[str]) -> None:
    before = threading.excepthook

    def main() -> int:
        thread = threading.Thread(target=fails(OSError(errno.ENOSPC, "full")))
        thread.start()
        thread.join()
        return 0

    try:
        with pytest.raises(SystemExit):
            run_main(main)
    finally:
        threading.excepthook = before
    assert capsys.readouterr().err.startswith("error: cannot read or write: No space left")


def test_a_full_disk_of_any_library_is_explained(tmp_path: Path) -> None:
    assert explain(UserError("give another one")) == "give another one"
    assert "'/x'" in str(explain(OSError(errno.ENOSPC, "full", b"/x")))
    with pytest.raises(OSError) as error:
        (tmp_path / ("x" * 300)).exists()
    assert "choose a shorter name" in str(explain(error.value))


def test_a_listing_has_five_names_and_a_count() -> None:
    assert listing([]) == "none" and listing("abcde") == "a, b, c, d, e"
    assert listing(map(str, range(108))) == "0, 1, 2, 3, 4 and 103 more"
    keys = ["alpha", "beta", "gamma", "delta", "omega", "abs_actions", "steps/actions"]
    assert listing(keys, like="action").startswith("steps/actions, abs_actions, ")


def test_an_error_without_a_message_is_named_by_its_type() -> None:
    assert (
        one_line(ValueError("two\n  lines")) == "two lines" and one_line(EOFError()) == "EOFError"
    )


def test_only_one_place_makes_one_line_of_an_error() -> None:
    root = Path(__file__).resolve().parents[2]
    files = [
        f for part in ("alam_core", "training", "ros2_ws/src") for f in (root / part).rglob("*.py")
    ]
    by_hand = [
        str(f) for f in files if re.search(r"str\((error|failure)\)\.split\(\)", f.read_text())
    ]
    assert len(files) > 200 and [Path(f).name for f in by_hand] == ["errors.py"]
