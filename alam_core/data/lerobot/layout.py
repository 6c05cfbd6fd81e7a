"""Paths, names and size limits of a LeRobot data set, shared by reader and writer."""

VERSION = "v3.0"
INFO = "meta/info.json"
STATS = "meta/stats.json"
TASKS = "meta/tasks.parquet"
EPISODES = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
DATA = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"

STATE = "observation.state"
ACTION = "action"
IMAGES = "observation.images."  # followed by the view's name
# LeRobot keeps these beside the robot's features.
INDEX_COLUMNS = ("timestamp", "frame_index", "episode_index", "index", "task_index")

FILES_PER_CHUNK = 1000
DATA_FILE_MB = 100
VIDEO_FILE_MB = 200


def next_file(chunk: int, file: int) -> tuple[int, int]:
    """Chunk and file index after the given ones."""
    return (chunk + 1, 0) if file == FILES_PER_CHUNK - 1 else (chunk, file + 1)


def partial_name(name: str) -> str:
    """Name of the folder beside the data set in which it is written until it is complete."""
    return f".{name}.partial"
