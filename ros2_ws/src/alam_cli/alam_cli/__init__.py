"""The alam command: one front door to training commands and to the running robot."""
