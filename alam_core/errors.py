"""Errors that a person can act on: one line that says what is wrong, where, and what to do."""

import sys
from collections.abc import Callable


class UserError(Exception):
    """A mistake in what the program was given (a file, a flag, a checkpoint, the machine's set-up),
    not a bug. Its message is one line.
    """


def run_main(main: Callable[[], int | None]) -> None:
    """Run a script's ``main`` and exit with its code. A UserError is printed as one line and exits
    with code 2; Ctrl-C exits with 130.
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
