"""Check data and checkpoints before training. Options: ``--help``."""

from alam_core.errors import run_main
from alam_training.commands.check import main

if __name__ == "__main__":
    run_main(main)
