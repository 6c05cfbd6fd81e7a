"""Data, below both training stages: LeRobot data sets, video, decoded frames, mixtures."""
