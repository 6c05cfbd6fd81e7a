"""The argument parser of the ``alam`` command."""

import argparse
from typing import NoReturn

from alam_core.errors import UserError


class Parser(argparse.ArgumentParser):
    """Raises UserError for a wrong argument: one line, as for every other mistake of a user."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see '{self.prog} --help')")
