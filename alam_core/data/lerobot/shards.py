"""Writes the shards of a data set: parquet files of rows and of episodes, and video files. A shard
contains many episodes, up to a size limit.

T: frames of an episode, H, W: image height and width.
"""

import contextlib
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from alam_core.data.lerobot import layout
from alam_core.data.video.writer import VideoWriter, video_info
from alam_core.reserve import Reserve

MB = 1024**2


class ShardWriter:
    """Appends episodes to the current shards in ``folder``, and begins a new shard when one is
    full.

    views: camera name -> (H, W). fps: frames per second. reserve: the space for finishing the
    shards when the disk is full. num_bytes: written so far, roughly.
    """

    def __init__(
        self, folder: Path, views: dict[str, tuple[int, int]], fps: float, reserve: Reserve
    ) -> None:
        self.folder, self.views, self.fps, self._reserve = folder, views, fps, reserve
        self.num_bytes = 0
        kinds = ("data", "episodes", *(layout.IMAGES + view for view in views))
        self._position = dict.fromkeys(kinds, (0, 0))  # chunk and file index of the current shard
        self._data: tuple[FileIO, pq.ParquetWriter] | None = None
        self._videos: dict[str, VideoWriter] = {}

    def start_after(self, row: dict[str, Any]) -> None:
        """Begin with the shards after those of an episode, given its row of meta/episodes."""
        for kind in self._position:
            where = {"data": "data", "episodes": "meta/episodes"}.get(kind, f"videos/{kind}")
            self._position[kind] = layout.next_file(
                row[f"{where}/chunk_index"], row[f"{where}/file_index"]
            )

    def add_rows(self, columns: dict[str, np.ndarray]) -> dict[str, Any]:
        """Append the rows of one episode, (T,) or (T, width) per column. Returns their location as
        entries of meta/episodes.
        """
        arrays = {}
        for name, values in columns.items():
            flat = pa.array(values.reshape(-1))
            is_vector = values.ndim == 2 and values.shape[1] != 1  # LeRobot: width 1 is a scalar
            arrays[name] = (
                pa.FixedSizeListArray.from_arrays(flat, values.shape[1]) if is_vector else flat
            )
        table = pa.table(arrays)
        if self._data and self._data[0].tell() + table.nbytes >= layout.DATA_FILE_MB * MB:
            self._close_data()
            self._advance("data")
        if not self._data:
            file = self._reserve.open(self._path(layout.DATA, "data"))
            self._data = file, pq.ParquetWriter(file, table.schema, compression="snappy")
        self._data[1].write_table(table)
        self.num_bytes += table.nbytes
        chunk, file_index = self._position["data"]
        return {"data/chunk_index": chunk, "data/file_index": file_index}

    def add_video(self, view: str, images: np.ndarray) -> dict[str, Any]:
        """Append the frames of one episode, uint8 RGB (T, H, W, 3). Returns their location as
        entries of meta/episodes.
        """
        key = layout.IMAGES + view
        video = self._videos.get(view)
        if video:
            expected = video.num_bytes * (1 + len(images) / video.num_frames)
            if expected >= layout.VIDEO_FILE_MB * MB:
                video.close()
                video = None
                self._advance(key)
        if not video:
            path = self._path(layout.VIDEO, key)
            file = self._reserve.open(path)
            video = VideoWriter(path, self.fps, *self.views[view], file=file)
            self._videos[view] = video
        first, before = video.num_frames, video.num_bytes
        video.add(images)
        self.num_bytes += video.num_bytes - before
        chunk, file_index = self._position[key]
        where = {
            "chunk_index": chunk,
            "file_index": file_index,
            "from_timestamp": first / self.fps,
            "to_timestamp": video.num_frames / self.fps,
        }
        return {f"videos/{key}/{name}": value for name, value in where.items()}

    def write_episodes(self, rows: list[dict[str, Any]]) -> None:
        """Write the rows of meta/episodes, of which there is at least one."""
        rows_a_file = max(1, layout.DATA_FILE_MB * MB // pa.Table.from_pylist(rows[:1]).nbytes)
        for start in range(0, len(rows), rows_a_file):
            if start:
                self._advance("episodes")
            chunk, file = self._position["episodes"]
            where = {"meta/episodes/chunk_index": chunk, "meta/episodes/file_index": file}
            table = pa.Table.from_pylist(
                [{**row, **where} for row in rows[start : start + rows_a_file]]
            )
            pq.write_table(table, self._path(layout.EPISODES, "episodes"), compression="snappy")

    def video_infos(self) -> dict[str, dict[str, Any]]:
        """View -> the description of its video files for info.json. Call it after ``close``."""
        return {view: video_info(video.path, self.fps) for view, video in self._videos.items()}

    def close(self) -> None:
        """Finish the current shards."""
        self._close_data()
        for video in self._videos.values():
            video.close()

    def abort(self) -> None:
        """Close the current shards without finishing them."""
        with contextlib.suppress(OSError):  # the disk may be full
            self._close_data()
        for video in self._videos.values():
            video.abort()

    def _close_data(self) -> None:
        if self._data:
            file, writer = self._data
            self._data = None
            with file:
                writer.close()

    def _advance(self, kind: str) -> None:
        self._position[kind] = layout.next_file(*self._position[kind])

    def _path(self, pattern: str, kind: str) -> Path:
        chunk, file = self._position[kind]
        path = self.folder / pattern.format(video_key=kind, chunk_index=chunk, file_index=file)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path
