"""Notices an arm that does not follow its set-point: it is stuck, pushed away, or its encoders are
wrong.
"""

import numpy as np

from alam_core.robots.piper import JOINT_NAMES


class TrackingMonitor:
    """Compares set-points with measured positions.

    max_error: rad that a joint may be away from its set-point. patience: s for which it may be
    further away. error: rad, the largest of the last comparison. The gripper is left out, because
    what it grips keeps it from its set-point.
    """

    def __init__(self, max_error: float, patience: float) -> None:
        self.error = 0.0
        self._max_error = max_error
        self._patience = patience
        self._beyond = 0.0  # s for which the error has been too large

    def restart(self) -> None:
        """Forget earlier comparisons."""
        self.error = self._beyond = 0.0

    def failure(self, set_point: np.ndarray, measured: np.ndarray, dt: float) -> str | None:
        """Compare (7,) with (7,), ``dt`` s after the last time. Returns ``tracking: reason`` once
        the error has been too large for too long, else None.
        """
        errors = np.abs(measured[:6] - set_point[:6])
        joint = int(errors.argmax())
        self.error = float(errors[joint])
        if self.error <= self._max_error:
            self._beyond = 0.0
            return None
        self._beyond += dt
        if self._beyond <= self._patience:
            return None
        return (
            f"tracking: {JOINT_NAMES[joint]} is {self.error:.3f} rad from its set-point, at most "
            f"{self._max_error} rad allowed; is the arm blocked?"
        )
