"""The argument parser of the ``alam`` command."""

import argparse
from typing import NoReturn

from alam_core.errors import UserError


class Parser(argparse.ArgumentParser):
    """Reports a mistake in one line, as every program here does."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see '{self.prog} --help')")
