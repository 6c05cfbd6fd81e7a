"""``python -m alam_cli`` is the ``alam`` command."""

from alam_cli.cli import main

main()
