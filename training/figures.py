"""Draw the plots and pictures of docs/figures. Options: ``--help``."""

from alam_core.errors import run_main
from alam_training.commands.figures import main

if __name__ == "__main__":
    run_main(main)
