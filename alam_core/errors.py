"""Errors that a person can act on: one line that says what is wrong, where, and what to do."""

import sys
from collections.abc import Callable


class UserError(Exception):
    """A mistake in what was given to the program (file, flag, checkpoint, machine), not in the
    program.
    """


def run_main(main: Callable[[], int | None]) -> None:
    """Run a script's ``main``; a UserError is printed as one line and ends with exit code 2, Ctrl-C
    with 130.
    """
    try:
        code = main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = 130
    sys.exit(code or 0)
