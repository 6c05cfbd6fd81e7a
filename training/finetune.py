"""Stage 2: train a policy on demonstrations. Options: ``--help``."""

from alam_core.errors import run_main
from alam_training.commands.finetune import main

if __name__ == "__main__":
    run_main(main)
