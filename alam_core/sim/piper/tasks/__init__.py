"""Tasks of the simulated Piper, one file each; docs/add_a_task.md says what a file contains."""
