"""Stage 1: pretrain a transition model on video. Options: ``--help``."""

from alam_core.errors import run_main
from alam_training.commands.pretrain import main

if __name__ == "__main__":
    run_main(main)
