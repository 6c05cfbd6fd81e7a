"""The demo: runs the shipped policy in simulation, records a video and counts successes."""
