"""Convert the authors' published weights. Options: ``--help``."""

from alam_core.errors import run_main
from alam_training.commands.import_weights import main

if __name__ == "__main__":
    run_main(main)
