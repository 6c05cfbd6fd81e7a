"""How MuJoCo reaches GL on this machine, and what to change where it cannot.

MuJoCo takes the way that the variable MUJOCO_GL names; without it, this project takes EGL, which
needs no screen. This module does not import MuJoCo.
"""

import ctypes.util
import os

BACKEND, PLATFORM, DEVICE = "MUJOCO_GL", "PYOPENGL_PLATFORM", "MUJOCO_EGL_DEVICE_ID"
VENDORS = ("__EGL_VENDOR_LIBRARY_DIRS", "__EGL_VENDOR_LIBRARY_FILENAMES")
WINDOWS = ("glfw", "glx", "on", "true", "enable", "enabled", "1")  # values that need a screen
OFF = ("off", "false", "disable", "disabled", "0")
EGL_PACKAGES = "sudo apt-get install libegl1 libegl-mesa0 libgl1 libgl1-mesa-dri"


def backend() -> str:
    """The way to GL that the environment asks for, in lower case."""
    return os.environ.get(BACKEND, "").strip().lower() or "egl"


def choose_backend() -> None:
    """Set MUJOCO_GL where it is not set or empty. Call it before MuJoCo is first imported."""
    os.environ[BACKEND] = os.environ.get(BACKEND, "").strip() or "egl"


def advice() -> str:
    """What to change where GL does not work: first the variables that stand in the way, then what
    is not installed.
    """
    way, platform = backend(), os.environ.get(PLATFORM, "").lower()
    unset = f"unset {BACKEND}, and EGL is used, which needs no screen"
    if way in WINDOWS:
        screen = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
        why = f"and '{screen}' is not one" if screen else "and DISPLAY names none"
        return f"{BACKEND}={way} needs a screen, {why}: {unset}"
    if way in OFF:
        return f"{BACKEND}={way} turns rendering off: {unset}"
    if way not in ("egl", "osmesa"):
        return f"{BACKEND}={way} is none of egl, osmesa and glfw: {unset}"
    # MuJoCo sets this variable itself, to the same value.
    if platform not in ("", way):
        return f"{PLATFORM}={platform} disagrees with {BACKEND}={way}: unset {PLATFORM}"
    if way == "osmesa":
        if ctypes.util.find_library("OSMesa"):
            return f"{BACKEND}=osmesa does not work with this OSMesa: {unset}"
        return f"{BACKEND}=osmesa needs OSMesa: sudo apt-get install libosmesa6, or {unset}"
    for variable in (DEVICE, *VENDORS):
        if variable in os.environ:
            return f"{variable}={os.environ[variable]} may name no EGL device: unset {variable}"
    if not ctypes.util.find_library("EGL"):
        return f"the EGL library is missing: {EGL_PACKAGES}"
    return (
        f"EGL finds no device that can render: {EGL_PACKAGES} installs one in software; for the "
        "NVIDIA GPU in a container, start it with NVIDIA_DRIVER_CAPABILITIES=all"
    )
