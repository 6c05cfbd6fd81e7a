"""Which videos of a data set are colour views. Others, such as depth and masks, are stored as
videos too; a model trained on them as if they were colours would need them from the robot.
"""

import re
from typing import Any

DEPTH = {"depth", "disparity"}
MASK = {"mask", "masks", "segmentation", "seg"}
COLOUR = {"rgb", "color", "colour"}


def no_colours(key: str, feature: dict[str, Any]) -> tuple[str, bool]:
    """Why a video feature seems to be no colour view, "" if it is one; and whether that is certain,
    because the feature's description in info.json says so and not only its name.
    """
    described = feature.get("info") or feature.get("video_info") or {}
    info = {str(name).removeprefix("video."): value for name, value in described.items()}
    pixels = str(info.get("pix_fmt") or "")
    words = set(re.split(r"[^a-z]+", key.lower()))
    if info.get("is_depth_map"):
        return "it is a depth map (is_depth_map in meta/info.json)", True
    if re.match(r"gray(\d{2}|f)", pixels):
        return f"it has deep grey levels, not colours (pix_fmt {pixels} in meta/info.json)", True
    if words & (DEPTH | MASK) and not words & COLOUR:
        shown = "depth" if words & DEPTH else "masks"
        return f"its name says that it shows {shown}; if it does not, name it with --views", False
    return "", False
