"""The states of the controller, and what it sends in a tick."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np


class State(StrEnum):
    DISABLED = "DISABLED"
    ENABLING = "ENABLING"
    HOLDING = "HOLDING"
    EXECUTING = "EXECUTING"
    FAULT = "FAULT"


@dataclass(frozen=True)
class Output:
    """What to send in this tick: a request for power, a set-point (7,), or nothing.

    first_of_chunk: if this is a chunk's first set-point, the chunk's stamp in s.
    """

    enable: bool = False
    set_point: np.ndarray | None = None
    first_of_chunk: float | None = None
