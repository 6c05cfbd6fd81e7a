"""Video files: writing them, reading chosen frames, and folders of them as data sets."""

from alam_core.data.video.folder import VideoFolder
from alam_core.data.video.reader import OpenVideos, VideoReader
from alam_core.data.video.writer import VideoWriter

__all__ = ["OpenVideos", "VideoFolder", "VideoReader", "VideoWriter"]
