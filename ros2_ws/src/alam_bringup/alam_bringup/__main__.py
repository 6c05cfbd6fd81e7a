"""``python -m alam_bringup`` is the ``alam`` command."""

from alam_bringup.cli import main

main()
