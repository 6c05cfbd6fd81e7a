"""Collect demonstrations of a scripted expert in a simulated world. Options: ``--help``."""

from alam_core.errors import run_main
from alam_training.commands.collect import main

if __name__ == "__main__":
    run_main(main)
