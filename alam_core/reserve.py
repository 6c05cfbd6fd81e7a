"""Disk space that is set aside, so that what was begun can be finished when the disk is full."""

import contextlib
import errno
import io
import os
from pathlib import Path
from typing import Any

FULL = (errno.ENOSPC, errno.EDQUOT)  # a full disk, a used-up quota


class Reserve:
    """Space set aside by a hidden file in ``folder``. A write that meets a full disk frees it, and
    goes on in the freed space.

    used: whether that has happened; what is being written should then be finished. A file system
    that cannot set space aside has no reserve, which is no error.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / ".reserve"
        self.used = False

    def grow(self, size: int) -> None:
        """Make the reserve at least ``size`` bytes large. Where the disk has too little space for
        that, the reserve is used.
        """
        if self.used:
            return
        try:
            with self._path.open("ab") as file:
                os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            if error.errno in FULL:
                self.use()

    def use(self) -> bool:
        """Free the space. Returns whether there was any."""
        self.used = True
        try:
            self._path.unlink()
        except FileNotFoundError:
            return False
        return True

    def release(self) -> None:
        """Free the space, which is no longer needed."""
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()

    def open(self, path: Path) -> io.FileIO:
        """Create a file whose writes use the reserve where the disk is full."""
        return _ReservedFile(path, self)


class _ReservedFile(io.FileIO):
    def __init__(self, path: Path, reserve: Reserve) -> None:
        super().__init__(str(path), "w")
        self._reserve = reserve

    def write(self, data: Any) -> int:
        """Write all of ``data``, an object with bytes."""
        rest = memoryview(data).cast("B")
        size = len(rest)
        while len(rest):
            try:
                rest = rest[os.write(self.fileno(), rest) :]
            except OSError as error:
                if error.errno not in FULL or not self._reserve.use():
                    raise OSError(error.errno, os.strerror(error.errno or 0), self.name) from None
        return size
