"""Turn result files into docs/results.md. Options: ``--help``."""

from alam_core.errors import run_main
from alam_training.commands.report import main

if __name__ == "__main__":
    run_main(main)
