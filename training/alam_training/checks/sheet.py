"""A contact sheet: a few frames of each view in one PNG file, a row for each episode and view."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from alam_core.data.checks import FrameSample
from alam_core.errors import UserError
from alam_core.files import replacing_file

EPISODES = 3  # of each view
SCALE = 2  # of the images that are kept
LABEL, GAP = 14, 4  # px


def write_sheet(samples: Sequence[FrameSample], path: Path) -> str:
    """Write the sheet; returns its path, "" without samples. Raises UserError if it cannot be
    written.
    """
    shown = [
        sample
        for view in dict.fromkeys(sample.view for sample in samples)
        for sample in _spread([sample for sample in samples if sample.view == view])
    ]
    if not shown:
        return ""
    side = shown[0].images.shape[1] * SCALE
    columns = max(len(sample.images) for sample in shown)
    sheet = Image.new(
        "RGB", (GAP + columns * (side + GAP), len(shown) * (LABEL + side + GAP)), "white"
    )
    draw = ImageDraw.Draw(sheet)
    for i, sample in enumerate(shown):
        top = i * (LABEL + side + GAP)
        first, last = sample.rows[0], sample.rows[-1]
        draw.text(
            (GAP, top + 1),
            f"{sample.view}, episode {sample.episode}: rows {first} to {last}",
            "black",
        )
        for column, small in enumerate(sample.images):
            image = Image.fromarray(small).resize((side, side))
            sheet.paste(image, (GAP + column * (side + GAP), top + LABEL))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing_file(path) as temporary:
            sheet.save(temporary)
    except OSError as error:
        raise UserError(
            f"cannot write '{path}' ({error.strerror}): choose another --sheets"
        ) from None
    return str(path)


def _spread(samples: Sequence[FrameSample]) -> list[FrameSample]:
    """The first, the last and one between."""
    if len(samples) <= EPISODES:
        return list(samples)
    return [samples[i * (len(samples) - 1) // (EPISODES - 1)] for i in range(EPISODES)]
