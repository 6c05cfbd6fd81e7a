"""Offscreen rendering with MuJoCo, shared by the worlds: images without a screen, and one clear
error where MuJoCo or GL is missing.

Importing this module imports MuJoCo. Worlds take ``mujoco`` from here, so that the GL backend is
chosen before MuJoCo is first imported.
"""

import atexit
import contextlib
import gc
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from alam_core.errors import UserError, one_line
from alam_core.sim.gl import WINDOWS, advice, backend, choose_backend
from alam_core.sim.profiles import Rendering

choose_backend()
# Triton, which torch imports on demand, and Mesa's software renderer each bring an LLVM. If Triton
# comes second, the process crashes.
with contextlib.suppress(ImportError):
    importlib.import_module("triton")
if importlib.util.find_spec("mujoco") is None:
    raise UserError("simulated worlds need the package mujoco: pip install mujoco")
try:
    import mujoco
except Exception as error:  # GL libraries raise many kinds
    raise UserError(f"no image can be rendered: {advice()} ({one_line(error)})") from None

if backend() in WINDOWS:  # a missing screen is an error, not a warning
    importlib.import_module("glfw").ERROR_REPORTING = "raise"  # type: ignore[attr-defined]

__all__ = ["Renderer", "mujoco"]

T = TypeVar("T")

MAX_GEOMS = 2000  # in one image


class Renderer:
    """Renders the fixed cameras of one or several models, ``size`` x ``size`` pixels, through one
    GL context (``mujoco.Renderer`` opens one per model).

    With ``rendering`` "fast", shadows, reflections and multisampling are off: on a software
    renderer they multiply the time of an image by ten. "full" leaves them as the model says, which
    is what ``mujoco.Renderer`` and the benchmarks' own renderers show. Geoms of ``hidden_groups``
    are not drawn. Use it in one thread: the context belongs to the thread that renders first.
    """

    def __init__(
        self, size: int, rendering: Rendering = "fast", hidden_groups: Sequence[int] = ()
    ) -> None:
        self.size = size
        self.rendering = rendering
        self._options = mujoco.MjvOption()
        for group in hidden_groups:
            self._options.geomgroup[group] = 0
        self._gl: mujoco.GLContext | None = None
        # id of a model -> the model, which is kept alive here, its context and its scene
        self._models: dict[int, tuple[mujoco.MjModel, mujoco.MjrContext, mujoco.MjvScene]] = {}

    def render(self, model: "mujoco.MjModel", data: "mujoco.MjData", camera: str) -> np.ndarray:
        """Image of the named camera, uint8 RGB (size, size, 3), first row at the top. Raises
        UserError where GL is missing.
        """
        if self._gl is None:
            self._gl = _make_gl(lambda: mujoco.GLContext(self.size, self.size))
            atexit.register(self.close)  # before the interpreter unloads GL
        self._gl.make_current()
        if id(model) not in self._models:
            self._models[id(model)] = (model, *self._prepare(model))
        _, context, scene = self._models[id(model)]
        view = mujoco.MjvCamera()
        view.type, view.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, model.camera(camera).id
        everything = mujoco.mjtCatBit.mjCAT_ALL
        mujoco.mjv_updateScene(model, data, self._options, None, view, everything, scene)
        rect = mujoco.MjrRect(0, 0, self.size, self.size)
        image = np.empty((self.size, self.size, 3), np.uint8)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, context)
        mujoco.mjr_render(rect, scene, context)
        mujoco.mjr_readPixels(image, None, rect, context)
        return image[::-1].copy()  # GL's first row is the lowest

    def close(self) -> None:
        """Free the GL context. The next ``render`` opens a new one."""
        if self._gl is not None:
            atexit.unregister(self.close)
            self._gl.make_current()
            for _, context, _ in self._models.values():
                context.free()
            self._models.clear()
            self._gl.free()
            self._gl = None

    def _prepare(self, model: "mujoco.MjModel") -> tuple["mujoco.MjrContext", "mujoco.MjvScene"]:
        fast = self.rendering == "fast"
        if fast:
            model.vis.quality.shadowsize = model.vis.quality.offsamples = 0
        model.vis.global_.offwidth = model.vis.global_.offheight = self.size
        font = mujoco.mjtFontScale.mjFONTSCALE_100
        context = _make_gl(lambda: mujoco.MjrContext(model, font))
        scene = mujoco.MjvScene(model, maxgeom=MAX_GEOMS)
        if fast:
            scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 0
            scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
        return context, scene


def _make_gl(make: Callable[[], T]) -> T:
    """The GL object that ``make`` returns. Raises UserError if GL is missing; MuJoCo's destructor
    then prints errors about the partly constructed object, which are suppressed.
    """
    try:
        return make()
    except Exception as error:  # GL libraries raise many kinds
        reason = one_line(error)
        hook = sys.unraisablehook
        sys.unraisablehook = lambda _: None
        traceback.clear_frames(error.__traceback__)
    gc.collect()
    sys.unraisablehook = hook
    raise UserError(f"no image can be rendered: {advice()} ({reason})")
