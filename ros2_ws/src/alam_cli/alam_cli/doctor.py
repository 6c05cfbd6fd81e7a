"""``alam doctor``: reports what is installed, what is missing and how to install it.

Modules that may be missing are imported only inside the checks.
"""

import importlib.metadata
import importlib.util
import os
import re
import shutil
import socket
import subprocess
import sys
import sysconfig
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from alam_bringup import can_bus
from alam_bringup.cameras import list_cameras
from alam_bringup.description import NodeSpec
from alam_bringup.folders import folder, root
from alam_bringup.graph import CAN_GROUP, PIPER
from alam_core.errors import UserError
from alam_core.sim import gl

RENDER = """
import numpy
from alam_core.sim.rendering import mujoco
scene = '<light pos="0 0 3"/><geom size="1" rgba="1 0 0 1"/>'
model = mujoco.MjModel.from_xml_string(
    f'<mujoco><worldbody>{scene}</worldbody></mujoco>')
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
with mujoco.Renderer(model, 32, 32) as renderer:
    renderer.update_scene(data)
    assert renderer.render().std() > 1, 'the image is empty'
from OpenGL import GL
"""
DDS = """
import os, rclpy, time
rclpy.init(domain_id=99)
node = rclpy.create_node('alam_doctor')
time.sleep(0.3)
folder = '/proc/self/fd/'
own = {os.readlink(folder + n) for n in os.listdir(folder) if os.path.exists(folder + n)}
rows = [line.split() for line in open('/proc/net/udp').readlines()[1:]]
bound = {row[1].split(':')[0] for row in rows if f'socket:[{row[9]}]' in own}
node.destroy_node()
rclpy.shutdown()
print('loopback' if bound == {'0100007F'} else 'open' if bound else 'none')
"""


@dataclass(frozen=True)
class Diagnosis:
    """The result of one check.

    what: the thing checked. ok: whether it was found to work. detail: what was found. fix: how to
    install or repair it. needed: whether the demo cannot run without it.
    """

    what: str
    ok: bool
    detail: str
    fix: str = ""
    needed: bool = True


def _script(code: str, timeout: float = 60.0) -> tuple[bool, str]:
    """Run Python code in a child process, because broken GL or DDS libraries may crash the process.

    Returns whether it exited with code 0 within ``timeout`` s, and the last line that it printed.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)],
            capture_output=True,
            text=True,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        return False, f"still running after {timeout:.0f} s"
    lines = [
        line
        for line in (done.stdout if done.returncode == 0 else done.stderr).splitlines()
        if line.strip()
    ]
    return done.returncode == 0, lines[-1] if lines else f"exit code {done.returncode}"


def check_python() -> Iterator[Diagnosis]:
    fits = (3, 11) <= sys.version_info[:2] <= (3, 12)
    yield Diagnosis(
        "Python",
        fits,
        sys.version.split()[0],
        "install Python 3.11 or 3.12, remove .venv, run 'make setup'",
    )
    for tool, package in (("g++", "build-essential"), ("cmake", "cmake")):
        path = shutil.which(tool)
        fix = f"sudo apt-get install {package}"
        yield Diagnosis(tool, path is not None, path or "not found", fix)
    header = Path(sysconfig.get_paths()["include"]) / "Python.h"
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    yield Diagnosis(
        "Python headers",
        header.is_file(),
        str(header.parent),
        f"sudo apt-get install {version}-dev",
    )


def check_packages() -> Iterator[Diagnosis]:
    pins = re.findall(
        r"^([A-Za-z0-9_.-]+)(?:\[.*?\])?==([^\s#]+)",
        (root() / "requirements" / "base.txt").read_text(),
        re.MULTILINE,
    )
    wrong = []
    for name, version in pins:
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            wrong.append(f"{name} is missing")
            continue
        # ROS from apt needs another version of numpy, see scripts/setup.sh.
        if found != version and name != "numpy":
            wrong.append(f"{name} is {found} instead of {version}")
    if importlib.util.find_spec("alam_core") is None:
        wrong.append("alam_core is not installed")
    yield Diagnosis(
        "Python packages",
        not wrong,
        "; ".join(wrong) or f"{len(pins)} as pinned in requirements/base.txt",
        "make setup",
    )


def check_rendering() -> Iterator[Diagnosis]:
    ok, said = _script(RENDER)
    detail = "MuJoCo rendered an image" if ok else said
    yield Diagnosis(f"rendering ({gl.backend()})", ok, detail, gl.advice())


def check_ros() -> Iterator[Diagnosis]:
    spec = importlib.util.find_spec("rclpy")
    origin = "not found" if spec is None else f"{Path(spec.origin or '').parent}"
    kind = "" if spec is None else " (PyPI wheels)" if origin.startswith(sys.prefix) else " (apt)"
    yield Diagnosis(
        "ROS 2 Jazzy",
        spec is not None,
        origin + kind,
        "make setup (wheels), or source /opt/ros/jazzy/setup.bash and make setup",
    )
    commands = shutil.which("ros2")
    yield Diagnosis(
        "ros2 command",
        commands is not None,
        commands or "not found",
        "optional: comes with ROS 2 from apt; 'alam up' and 'alam echo' work without it",
        needed=False,
    )


def check_workspace() -> Iterator[Diagnosis]:
    try:
        from alam_bringup.installed import executable

        for package, name in {(node.package, node.executable) for node in _piper_nodes()}:
            executable(package, name)
        from alam_msgs.msg import Observation  # noqa: F401

        yield Diagnosis("workspace", True, "alam_msgs and all nodes of 'piper' are built")
    except (ImportError, UserError) as error:
        yield Diagnosis("workspace", False, str(error), "make setup, then source setup.bash")


def _piper_nodes() -> list[NodeSpec]:
    # The model folders have their own check. Because image_size is given, none is read here.
    values = PIPER.defaults() | {"checkpoint": "/", "encoder": "/", "image_size": 96}
    return PIPER.build(values)


def check_dds() -> Iterator[Diagnosis]:
    profile = os.environ.get("FASTRTPS_DEFAULT_PROFILES_FILE", "")
    good = Path(profile).is_file()
    yield Diagnosis("Fast DDS profile", good, profile or "not set", "source setup.bash")
    ok, said = _script(DDS)
    detail = {
        "loopback": "sockets are on 127.0.0.1 only",
        "open": "sockets are open to the network",
    }.get(said, said)
    yield Diagnosis("DDS", ok, detail, "source setup.bash")
    if ok and said != "loopback":
        yield Diagnosis(
            "DDS on this host only",
            False,
            detail,
            "source setup.bash, unless nodes on other hosts are to communicate with these",
            needed=False,
        )
    free = shutil.disk_usage("/dev/shm").free / 2**20 if Path("/dev/shm").is_dir() else 0.0
    yield Diagnosis(
        "shared memory",
        free > 300,
        f"{free:.0f} MiB free in /dev/shm",
        "in a container: --shm-size=1g",
    )


def check_can() -> Iterator[Diagnosis]:
    try:
        import can

        from alam_piper.bus import BusConfig, open_bus

        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:  # finds a free port
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        config = BusConfig("udp_multicast", CAN_GROUP, port)
        with open_bus(config) as one, open_bus(config) as other:
            one.send(can.Message(arbitration_id=0x123, data=[1, 2, 3], is_extended_id=False))
            message = other.recv(2.0)
        ok, said = (
            message is not None and bytes(message.data) == b"\x01\x02\x03",
            "no frame was received",
        )
    except Exception as error:  # whatever fails here is reported as the diagnosis
        ok, said = False, str(error)
    fix = "is the interface lo up, and is multicast allowed on it? sudo ip link set lo up"
    yield Diagnosis("emulated CAN bus", ok, f"frames pass on {CAN_GROUP}" if ok else said, fix)


def check_arm() -> Iterator[Diagnosis]:
    """What only a real arm needs."""
    try:
        links = can_bus.list_links()
        problems = {link: can_bus.find_problem(link.name) for link in links}
    except UserError as error:
        yield Diagnosis("CAN interface", False, str(error), "only for a real arm", needed=False)
        return
    if not links:
        fix = "only for a real arm: plug in the USB-CAN adapter, then run 'alam can up'"
        yield Diagnosis("CAN interface", False, "none", fix, needed=False)
    for link, problem in problems.items():
        detail = f"{link} is up at {link.bitrate} bit/s, and an arm is heard"
        yield Diagnosis(
            "CAN interface",
            problem is None,
            problem.what if problem else detail,
            problem.fix if problem else "",
            needed=False,
        )
    cameras = ", ".join(f"{serial} ({name})" for serial, name in list_cameras().items())
    fix = "only for a real arm with RealSense cameras: plug them in, see docs/real_arm.md"
    yield Diagnosis("RealSense cameras", bool(cameras), cameras or "none", fix, needed=False)


def check_checkpoints() -> Iterator[Diagnosis]:
    for argument in PIPER.arguments:
        if argument.folder:
            try:
                path = folder(argument.name, str(argument.default))
                complete = all(
                    (Path(path) / name).is_file() for name in ("config.json", "model.safetensors")
                )
                yield Diagnosis(
                    f"model {argument.name}",
                    complete,
                    path if complete else f"{path} is incomplete",
                    "git checkout checkpoints/",
                )
            except UserError:
                fix = "git checkout checkpoints/, or train one: alam pretrain, alam finetune"
                yield Diagnosis(
                    f"model {argument.name}", False, f"no folder {argument.default}", fix
                )


CHECKS: tuple[Callable[[], Iterator[Diagnosis]], ...] = (
    check_python,
    check_packages,
    check_rendering,
    check_ros,
    check_workspace,
    check_dds,
    check_can,
    check_arm,
    check_checkpoints,
)


def doctor() -> int:
    """Print one line per diagnosis, and how to install what is missing. Returns 0 if the demo can
    run, else 1.
    """
    missing = 0
    for check in CHECKS:
        for diagnosis in check():
            word = "OK" if diagnosis.ok else "MISSING" if diagnosis.needed else "-"
            line = f"{word:<8}{diagnosis.what}: {diagnosis.detail}"
            text = line if diagnosis.ok else f"{line}\n        how to get it: {diagnosis.fix}"
            print(text, flush=True)
            missing += diagnosis.needed and not diagnosis.ok
    print(
        "\nthe demo can run: make demo"
        if not missing
        else f"\n{missing} missing: the demo cannot run yet"
    )
    return 1 if missing else 0
