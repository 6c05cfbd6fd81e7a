"""Latent transitions of every adjacent frame pair of a data set, encoded once by a frozen encoder
and kept beside it.

F: frames of the data set, D: numbers in a transition.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.progress import Progress

from alam_core.checkpoints import checkpoint_hash
from alam_core.data.frames import FrameStore
from alam_core.errors import UserError
from alam_core.files import replacing_file

if TYPE_CHECKING:
    from alam_core.latent_action import TransitionModel

PIECE = 256  # pairs encoded at a time


def adjacent_latents(
    encoder: str | Path, view: str, frames: FrameStore, cache_dir: str | Path
) -> np.ndarray:
    """z of each frame to its successor (eq. 10), continuous, before quantisation: float32 (F, D),
    mapped from disk.

    The last frame of an episode is paired with itself: past the end nothing moves, as the last
    action is repeated there. encoder: folder of a transition model. The file's name holds the
    encoder's hash and the frames' fingerprint, so that a change of either encodes anew. Raises
    UserError for a broken encoder and a folder that cannot be written.
    """
    from alam_core.latent_action import TransitionModel

    fingerprint = Path(str(getattr(frames.array, "filename", view))).stem
    path = Path(cache_dir) / f"latents-{fingerprint}-{checkpoint_hash(encoder)}.npy"
    if not path.is_file():
        model = TransitionModel.from_pretrained(encoder)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _encode(model, view, frames, path)
        except OSError as error:
            raise UserError(
                f"cannot write latents to '{cache_dir}' ({error.strerror}): free space or copy the data set to where you may write"
            ) from None
    latents = np.load(path, mmap_mode="r", allow_pickle=False)
    if len(latents) != len(frames.array):
        raise UserError(
            f"'{path}' holds {len(latents)} latents for {len(frames.array)} frames; remove it, it is made anew"
        )
    return latents


def _encode(model: "TransitionModel", view: str, frames: FrameStore, path: Path) -> None:
    from alam_core.latent_action import encode_images

    count = len(frames.array)
    successors = np.arange(1, count + 1)
    ends = frames.starts + frames.lengths - 1
    successors[ends] = ends
    with replacing_file(path) as temporary:
        out = np.lib.format.open_memmap(
            temporary, mode="w+", dtype=np.float32, shape=(count, model.latent_size)
        )
        with Progress(transient=True) as progress:
            task = progress.add_task(f"encoding transitions of {view}", total=count)
            for first in range(0, count, PIECE):
                rows = slice(first, min(first + PIECE, count))
                out[rows] = encode_images(model, frames.array[rows], frames.array[successors[rows]])
                progress.advance(task, rows.stop - rows.start)
        out.flush()
        del out
