"""The small backbone, for CPUs and single GPUs."""
