"""Convert data of other formats into a LeRobot data set. Options: ``--help``."""

from alam_core.errors import run_main
from alam_training.commands.convert import main

if __name__ == "__main__":
    run_main(main)
