"""Label video with an inverse dynamics model. Options: ``--help``."""

from alam_core.errors import run_main
from alam_training.commands.label import main

if __name__ == "__main__":
    run_main(main)
