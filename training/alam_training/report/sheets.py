"""Sheets of decoded frames: reconstruction over the horizons, and transitions transferred from one
domain to another (Figures 6 and 7).

Letters: N clips, S image side. Frames are uint8 RGB (S, S, 3) on sheets and float (N, 3, S, S) in
[0, 1] in the model.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from alam_core.errors import UserError
from alam_core.latent_action.inference import to_images
from alam_core.latent_action.interface import TransitionEncoder
from alam_core.latent_action.measures import psnr
from alam_core.latent_action.probes import HORIZONS
from alam_training.report.sheet_layout import Cell, save_sheet
from alam_training.stage1.clips import Clips, held_out_clips
from alam_training.stage1.runs import run_config

CLIPS = 64  # per world; the ones to show are chosen from them
MIDDLE, END = 1, 2  # the frames b and c of a transfer sheet, in units of k
HORIZON_NAMES = ["source", "k", *(f"{t}k" for t in range(2, HORIZONS + 1))]
TRANSFER_NAMES = ["$o_a$", "$o_{ab}$", "$o_{ac}$", "$o_{ab+bc}$"]


@dataclass
class Domain:
    """Clips that look alike: one view of a world, or synthetic ones."""

    name: str
    frames: np.ndarray  # uint8 (6, N, S, S, 3)


def draw_sheets(
    runs: dict[Path, tuple[str, int]], transfer: list[str], gap: int, out: Path
) -> list[Path]:
    """Draw a reconstruction sheet of all methods for each view of the first run's worlds, and a
    transfer sheet for each method in ``transfer`` (all if empty); returns the files.

    runs: run folder -> (method, seed); the first seed of a method is drawn. gap: k in frames.
    Raises UserError for models with different image sizes.
    """
    firsts: dict[str, Path] = {}  # method -> run of its first seed
    for run, (method, _) in runs.items():
        firsts.setdefault(method, run)
    models = {
        method: TransitionEncoder.from_pretrained(run / "model") for method, run in firsts.items()
    }
    sizes = {model.image_size for model in models.values()}
    if len(sizes) > 1:
        raise UserError(
            f"models for images of {', '.join(map(str, sorted(sizes)))} px cannot share a sheet: "
            "give models of one size"
        )
    size = sizes.pop()
    worlds = held_out_clips(next(iter(runs)), run_config(next(iter(runs))), size, gap, CLIPS)
    written = []
    domains = {world: _domains(world, clips) for world, clips in worlds.items()}
    for world, views in domains.items():
        for view, domain in views.items():
            if domain.frames.shape[1] < 2:  # no other clip to take z from
                continue
            title = f"{domain.name}: decoded from the source, PSNR against the frame"
            path = out / f"reconstruction_{world}_{view}.webp"
            rows = reconstruction_sheet(models, domain)
            written.append(save_sheet({"": rows}, HORIZON_NAMES, title, path))
    pairs = transfer_pairs(
        [list(views.values()) for views in domains.values()],
        Domain("unseen shapes", moving_shapes(8, size)),
    )
    for method, model in models.items():
        if method in transfer or not transfer:
            blocks = {
                f"{source.name} to {target.name}": transfer_block(model, source, target)
                for source, target in pairs
            }
            title = (
                f"{method}: transitions inferred in the source, decoded on an anchor of the target"
            )
            written.append(
                save_sheet(blocks, TRANSFER_NAMES, title, out / f"transfer_{method}.webp")
            )
    return written


def transfer_pairs(worlds: list[list[Domain]], unseen: Domain) -> list[tuple[Domain, Domain]]:
    """Pairs of source and target, at most six: between the first views of two worlds, from the
    first to the second view of a world, and from a domain no model has seen to each world.
    """
    firsts = [views[0] for views in worlds]
    between = [(source, target) for source in firsts for target in firsts if source is not target]
    views = [(views[0], views[1]) for views in worlds if len(views) > 1]
    return [*between[:2], *views[:2], *((unseen, first) for first in firsts[:2])]


@torch.no_grad()
def reconstruction_sheet(
    models: dict[str, TransitionEncoder], domain: Domain
) -> dict[str, list[Cell]]:
    """Rows of a sheet by name: the true frames, and for each model what it decodes from z_0^t, from
    the sum of the steps' z, and from another clip's z.
    """
    frames = [to_images(frame) for frame in domain.frames]
    shown = lively_clip(domain.frames)
    pick, other = (
        slice(shown, shown + 1),
        slice((shown + len(frames[0]) // 2) % len(frames[0]), None),
    )
    rows = {"frames": [Cell(_uint8(frame[pick])) for frame in frames]}
    for name, model in models.items():
        source = frames[0][pick]
        steps = [model.encode(frames[t][pick], frames[t + 1][pick]) for t in range(HORIZONS)]
        donors = [
            model.encode(frames[0][other][:1], frames[t + 1][other][:1]) for t in range(HORIZONS)
        ]
        ways = {
            "direct": [model.encode(source, frames[t + 1][pick]) for t in range(HORIZONS)],
            "cumulative": [torch.stack(steps[: t + 1]).sum(dim=0) for t in range(HORIZONS)],
            "another's z": donors,
        }
        for way, latents in ways.items():
            decoded = [model.decode(source, z) for z in latents]
            cells = [_scored(image, frames[t + 1][pick]) for t, image in enumerate(decoded)]
            rows[f"{name}, {way}"] = [Cell(), *cells]
    return rows


@torch.no_grad()
def transfer_block(
    model: TransitionEncoder, source: Domain, target: Domain
) -> dict[str, list[Cell]]:
    """Rows of a block by name. Columns: o_a, o_ab, o_ac and o_ab + o_bc (decoded from the sum of
    the latents).

    "target" decodes the source's transitions on an anchor of the target domain (Figure 7); "target,
    own z" the target's own transitions, whose true frames are known (Figure 6). Numbers: PSNR
    against the true frame, and of o_ab + o_bc against o_ac.
    """
    at, to = lively_clip(source.frames), lively_clip(target.frames)
    (a, b, c), (ta, tb, tc) = (
        [to_images(frames[t, clip : clip + 1]) for t in (0, MIDDLE, END)]
        for frames, clip in ((source.frames, at), (target.frames, to))
    )

    def decoded(
        anchor: Tensor, z_ab: Tensor, z_bc: Tensor, z_ac: Tensor, true: list[Tensor] | None
    ) -> list[Cell]:
        images = [model.decode(anchor, z) for z in (z_ab, z_ac, z_ab + z_bc)]
        scores = (
            [f"{psnr(image, frame):.1f} dB" for image, frame in zip(images, true, strict=False)]
            if true
            else ["", ""]
        )
        scores.append(f"{psnr(images[2], images[1]):.1f} dB to ac")
        return [
            Cell(_uint8(anchor), "a"),
            *(Cell(_uint8(image), score) for image, score in zip(images, scores, strict=True)),
        ]

    z = (model.encode(a, b), model.encode(b, c), model.encode(a, c))
    own = (model.encode(ta, tb), model.encode(tb, tc), model.encode(ta, tc))
    return {
        "source, true": [Cell(_uint8(a), "a"), Cell(_uint8(b), "b"), Cell(_uint8(c), "c"), Cell()],
        "source": decoded(a, *z, [b, c]),
        "target": decoded(ta, *z, None),
        "target, own z": decoded(ta, *own, [tb, tc]),
        "target, true": [
            Cell(_uint8(ta), "a"),
            Cell(_uint8(tb), "b"),
            Cell(_uint8(tc), "c"),
            Cell(),
        ],
    }


def lively_clip(frames: np.ndarray) -> int:
    """Index of the clip at the 75th percentile of motion between frames a and c; ``frames`` are
    (6, N, S, S, 3).
    """
    moved = np.abs(frames[END].astype(np.int16) - frames[0]).mean(axis=(1, 2, 3))
    return int(np.argsort(moved)[int(0.75 * (len(moved) - 1))])


def moving_shapes(clips: int, size: int, seed: int = 0) -> np.ndarray:
    """Synthetic video that no encoder was trained on, uint8 (6, clips, size, size, 3): discs and
    squares drift over a coloured background.
    """
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] / size
    out = np.empty((HORIZONS + 1, clips, size, size, 3), np.uint8)
    for clip in range(clips):
        ground, slope = rng.uniform(60, 140, 3), rng.uniform(-40, 40, (2, 3))
        places, speeds = rng.uniform(0.25, 0.75, (3, 2)), rng.uniform(-0.09, 0.09, (3, 2))
        colours, radii = rng.uniform(0, 255, (3, 3)), rng.uniform(0.1, 0.17, 3)
        for t in range(HORIZONS + 1):
            image = ground + x[..., None] * slope[0] + y[..., None] * slope[1]
            for number in range(3):
                dx, dy = (
                    x - places[number, 0] - t * speeds[number, 0],
                    y - places[number, 1] - t * speeds[number, 1],
                )
                square = np.maximum(abs(dx), abs(dy)) < 0.85 * radii[number]
                image[dx**2 + dy**2 < radii[number] ** 2 if number == 1 else square] = colours[
                    number
                ]
            out[t, clip] = image.clip(0, 255)
    return out


def _domains(world: str, clips: Clips) -> dict[str, Domain]:
    """View -> its clips, for the views that have any."""
    return {
        view: Domain(f"{world}, {view}", clips.frames[:, clips.groups == number])
        for number, view in enumerate(clips.views)
        if (clips.groups == number).any()
    }


def _scored(image: Tensor, true: Tensor) -> Cell:
    return Cell(_uint8(image), f"{psnr(image, true):.1f} dB")


def _uint8(image: Tensor) -> np.ndarray:
    """(1, 3, S, S) in [0, 1] -> uint8 (S, S, 3)."""
    return (image[0].clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
