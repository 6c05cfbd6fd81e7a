"""The arm of the simulated worlds on an empty table, as a plant of the emulator. It renders nothing
by itself.
"""

import contextlib
import os
from collections.abc import Callable, Iterator

import numpy as np

from alam_core.errors import UserError
from alam_core.robots.piper import GRIPPER_STROKE, HOME, JOINT_LIMITS
from alam_core.sim.piper.scene import scene_xml
from alam_core.sim.rendering import mujoco
from alam_core.sim.world import TICK


class SimulatedArm:
    """MuJoCo physics of the arm, at rest at ``HOME``. The motors move it in ``advance``."""

    def __init__(self) -> None:
        self._model = mujoco.MjModel.from_xml_string(scene_xml("emulated_arm", ""))
        self._data = mujoco.MjData(self._model)
        self._steps = round(TICK / self._model.opt.timestep)
        self._data.qpos[:6] = HOME[:6]
        self._data.qpos[6:8] = HOME[6] / 2
        self.set_target(np.array(HOME[:6]), HOME[6])
        mujoco.mj_forward(self._model, self._data)

    def set_target(self, joints: np.ndarray, gripper: float) -> None:
        """See ``emulator.Plant``."""
        self._data.ctrl[:6] = np.clip(joints, JOINT_LIMITS[:, 0], JOINT_LIMITS[:, 1])
        self._data.ctrl[6] = min(max(gripper, 0.0), GRIPPER_STROKE) / 2

    def state(self) -> tuple[np.ndarray, np.ndarray, float]:
        """See ``emulator.Plant``."""
        q, qd = self._data.qpos, self._data.qvel
        return q[:6].copy(), qd[:6].copy(), float(q[6] + q[7])

    def advance(self) -> None:
        """Advance the physics by ``TICK``."""
        mujoco.mj_step(self._model, self._data, nstep=self._steps)

    @contextlib.contextmanager
    def viewer(self) -> Iterator[Callable[[], None]]:
        """MuJoCo's viewer in a window. Yields a function that shows the present state; it raises
        KeyboardInterrupt once the window is closed. Raises UserError without a screen.
        """
        if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            raise UserError("the viewer needs a screen, and DISPLAY names none: leave --viewer out")
        import mujoco.viewer as window  # needs GLFW

        with window.launch_passive(self._model, self._data) as shown:

            def show() -> None:
                if not shown.is_running():
                    raise KeyboardInterrupt
                shown.sync()

            yield show
