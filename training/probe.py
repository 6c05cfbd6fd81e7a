"""Probe trained transition models on held-out episodes. Options: ``--help``."""

from alam_core.errors import run_main
from alam_training.commands.probe import main

if __name__ == "__main__":
    run_main(main)
