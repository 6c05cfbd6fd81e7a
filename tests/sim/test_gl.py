"""Where GL does not work, the message blames what stands in the way."""

import os
import subprocess
import sys

import pytest

from alam_core.sim import gl

GL_VARIABLES = (gl.BACKEND, gl.PLATFORM, gl.DEVICE, *gl.VENDORS, "DISPLAY", "WAYLAND_DISPLAY")


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"MUJOCO_GL": "glfw"}, "MUJOCO_GL=glfw needs a screen, and DISPLAY names none: unset MUJ"),
        ({"MUJOCO_GL": "GLX", "DISPLAY": ":7"}, "MUJOCO_GL=glx needs a screen, and ':7' is not"),
        ({"MUJOCO_GL": "off"}, "MUJOCO_GL=off turns rendering off: unset MUJOCO_GL"),
        ({"MUJOCO_GL": "elg"}, "MUJOCO_GL=elg is none of egl, osmesa and glfw: unset MUJOCO_GL"),
        ({"MUJOCO_GL": "osmesa"}, "MUJOCO_GL=osmesa needs OSMesa: sudo apt-get install libosmesa6"),
        ({"PYOPENGL_PLATFORM": "glx"}, "PYOPENGL_PLATFORM=glx disagrees with MUJOCO_GL=egl: unset"),
        ({"MUJOCO_EGL_DEVICE_ID": "9"}, "MUJOCO_EGL_DEVICE_ID=9 may name no EGL device: unset"),
        ({"__EGL_VENDOR_LIBRARY_DIRS": "/x"}, "__EGL_VENDOR_LIBRARY_DIRS=/x may name no EGL dev"),
        ({}, "the EGL library is missing: sudo apt-get install libegl1"),
        ({"MUJOCO_GL": ""}, "the EGL library is missing: sudo apt-get install libegl1"),
    ],
)
def test_a_variable_that_stands_in_the_way_is_named(
    variables: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in GL_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("ctypes.util.find_library", lambda name: None)
    assert gl.advice().startswith(message)


def test_an_installed_library_is_not_blamed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in GL_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("ctypes.util.find_library", lambda name: f"lib{name}.so")
    assert gl.advice().startswith("EGL finds no device") and "NVIDIA_DRIVER" in gl.advice()
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    assert "libosmesa6" not in gl.advice()


@pytest.mark.parametrize("way", ["glfw", "elg", "off"])
def test_a_world_on_a_headless_machine_says_so_in_one_line(way: str) -> None:
    pytest.importorskip("mujoco")
    code = (
        "from alam_core.errors import run_main; from alam_core.sim.world import make_world;"
        "run_main(lambda: make_world('piper_place', 32).reset(0))"
    )
    hidden = ("DISPLAY", "WAYLAND_DISPLAY", gl.PLATFORM)
    env = {name: value for name, value in os.environ.items() if name not in hidden}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=env | {"MUJOCO_GL": way},
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: no image can be rendered: MUJOCO_GL={way} ")
