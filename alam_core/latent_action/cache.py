"""The latent cache: transitions between all frames of a data set and the next ones, or those some
frames later, encoded once by a frozen encoder and stored beside the data.

Letters: F frames of the data set, D numbers in a transition.
"""

import hashlib
from pathlib import Path

import numpy as np
from rich.progress import Progress

from alam_core.checkpoints import checkpoint_hash
from alam_core.data.frames import FrameStore
from alam_core.errors import UserError
from alam_core.files import replacing_file
from alam_core.latent_action.inference import encode_images
from alam_core.latent_action.interface import TransitionEncoder

CHUNK = 256  # pairs encoded at a time


def cached_latents(
    encoder: str | Path,
    view: str,
    frames: FrameStore,
    cache_dir: str | Path,
    stride: int = 1,
) -> np.ndarray:
    """Continuous z from each frame to the one ``stride`` frames later, by default the next (eq.
    10), or to the last of its episode: float32 (F, D), a memory map.

    The last frame is paired with itself. This matches the action chunks, which repeat the last
    action past the end. encoder: folder of a transition encoder. The cache's file name contains the
    encoder's hash, the stride, the frames' fingerprint and a digest of the episodes' ends, so a
    change of any leads to a new file. Raises UserError for a broken encoder and a folder that
    cannot be written.
    """
    fingerprint = Path(str(getattr(frames.array, "filename", view))).stem
    ends = hashlib.sha256((frames.starts + frames.lengths).tobytes()).hexdigest()[:8]
    apart = f"-{stride}" if stride > 1 else ""
    name = f"latents-{fingerprint}-{ends}-{checkpoint_hash(encoder)}{apart}.npy"
    path = Path(cache_dir) / name
    if not path.is_file():
        model = TransitionEncoder.from_pretrained(encoder)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _encode(model, view, frames, path, stride)
        except OSError as error:
            raise UserError(
                f"cannot write latents to '{cache_dir}' ({error.strerror}): free some space, or "
                "copy the data set to a folder that you may write to"
            ) from None
    latents = np.load(path, mmap_mode="r", allow_pickle=False)
    if len(latents) != len(frames.array):
        raise UserError(
            f"'{path}' holds {len(latents)} latents for {len(frames.array)} frames: remove it, and "
            "the next run encodes them again"
        )
    return latents


def _encode(
    model: TransitionEncoder, view: str, frames: FrameStore, path: Path, stride: int
) -> None:
    count = len(frames.array)
    ends = np.repeat(frames.starts + frames.lengths - 1, frames.lengths)
    later = np.minimum(np.arange(count) + stride, ends)
    with replacing_file(path) as temporary:
        out = np.lib.format.open_memmap(
            temporary, mode="w+", dtype=np.float32, shape=(count, model.latent_size)
        )
        with Progress(transient=True) as progress:
            task = progress.add_task(f"encoding transitions of {view}", total=count)
            for first in range(0, count, CHUNK):
                rows = slice(first, min(first + CHUNK, count))
                out[rows] = encode_images(model, frames.array[rows], frames.array[later[rows]])
                progress.advance(task, rows.stop - rows.start)
        out.flush()
        del out
