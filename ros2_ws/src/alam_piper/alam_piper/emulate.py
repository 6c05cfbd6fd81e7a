"""``alam emulate-piper``: an emulated arm with simulated physics on a CAN bus, in real time, for
any program that speaks to a Piper.
"""

import contextlib
import math
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import can
import numpy as np

from alam_common.stopping import on_stop_signals
from alam_core.errors import UserError, one_line
from alam_core.sim.world import TICK
from alam_piper.bus import TCP, BusConfig
from alam_piper.checks import ARM_STATUS
from alam_piper.emulator import ArmEmulator, open_emulator_bus
from alam_piper.faults import Fault, find_fault
from alam_piper.simulated_arm import SimulatedArm

EVERY = 0.5  # s between two progress lines
SHOW_EVERY = 4  # steps between two pictures in the viewer
LATE = 0.1  # s by which the emulator may be late; what exceeds it is not caught up
SLCAN_EVERY = 2  # steps between two feedbacks on slcan
CHANNELS = {"udp_multicast": "239.74.163.2", "slcan": TCP + "127.0.0.1:{port}", "socketcan": "can0"}


@dataclass(frozen=True)
class TimedFault:
    """A fault that begins ``start`` s after the emulator."""

    start: float
    name: str
    fault: Fault


def parse_fault(text: str) -> TimedFault:
    """``NAME@SECONDS`` as a fault. Raises UserError for an unknown name or no such time."""
    name, at, seconds = text.partition("@")
    fault = find_fault(name)
    try:
        start = float(seconds)
    except ValueError:
        start = math.nan
    if not at or not 0.0 <= start < math.inf:
        raise UserError(f"'{text}' has no time in s: write {name}@SECONDS, for example {name}@10")
    return TimedFault(start, name, fault)


def bus_config(interface: str, channel: str, port: int) -> BusConfig:
    """The bus of the options. channel: "" for the interface's own."""
    default = CHANNELS.get(interface, "").format(port=port)
    return BusConfig(interface, channel or default, port)


def describe(emulator: ArmEmulator, faults: Sequence[str]) -> str:
    """The arm's state in a line, without what changes all the time."""
    enabled = int(emulator.enabled.sum())
    parts = [
        "all motors on" if enabled == 6 else f"{enabled} of 6 motors on",
        f"control mode {emulator.ctrl_mode}",
        f"speed {emulator.speed_percent} %",
    ]
    if emulator.arm_status:
        parts.append(ARM_STATUS.get(emulator.arm_status, f"arm status {emulator.arm_status}"))
    if faults:
        parts.append(f"faults: {', '.join(faults)}")
    return ", ".join(parts)


def emulate(config: BusConfig, faults: Sequence[TimedFault] = (), viewer: bool = False) -> int:
    """Run an emulated arm until Ctrl-C, SIGTERM or SIGHUP. Returns the exit code, 0.

    Raises UserError if the bus cannot be opened, if an arm already answers on it or if it fails.
    """
    on_stop_signals(signal.default_int_handler)
    arm = SimulatedArm()
    with contextlib.ExitStack() as stack:
        try:
            bus = open_emulator_bus(config)
            stack.callback(bus.shutdown)
            show = stack.enter_context(arm.viewer()) if viewer else None
            print(f"emulated Piper on CAN bus {config}; Ctrl-C ends it", flush=True)
            emulator = ArmEmulator(bus, arm, SLCAN_EVERY if config.interface == "slcan" else 1)
            _Loop(emulator, arm, faults).run(show)
        except KeyboardInterrupt:
            print("\nended" if sys.stdout.isatty() else "ended", flush=True)
        except can.CanError as error:
            raise UserError(f"CAN bus {config} failed: {one_line(error)}") from error
    return 0


class _Loop:
    """Steps the arm in real time and prints its state: on a terminal in a line that is renewed,
    else in a new line at each change.
    """

    def __init__(self, emulator: ArmEmulator, arm: SimulatedArm, faults: Sequence[TimedFault]):
        self._emulator = emulator
        self._arm = arm
        self._due = sorted(faults, key=lambda fault: fault.start)
        self._active: list[str] = []
        self._said = ""
        self._width = 0

    def run(self, show: Callable[[], None] | None) -> None:
        """Run until an exception. show: shows the present state."""
        start = due = told = time.monotonic()
        steps = 0
        while True:
            now = time.monotonic()
            while self._due and now - start >= self._due[0].start:
                timed = self._due.pop(0)
                timed.fault.inject(self._emulator)
                self._active.append(timed.name)
            self._emulator.step(TICK)
            self._arm.advance()
            steps += 1
            if show and steps % SHOW_EVERY == 0:
                show()
            if now - told >= EVERY or steps == 1:
                self._tell(now - start)
                told = now
            due = max(due + TICK, time.monotonic() - LATE)
            time.sleep(max(0.0, due - time.monotonic()))

    def _tell(self, elapsed: float) -> None:
        emulator = self._emulator
        state = describe(emulator, self._active)
        if not sys.stdout.isatty():
            if state != self._said:
                print(f"{elapsed:7.1f} s: {state}", flush=True)
                self._said = state
            return
        joints, _, gripper = self._arm.state()
        angles = " ".join(f"{angle:+.2f}" for angle in np.append(joints, gripper))
        line = (
            f"{elapsed:7.1f} s: {state}; {emulator.joint_commands} commands, "
            f"{emulator.ignored_commands} ignored; at {angles}"
        )
        print("\r" + line.ljust(self._width), end="", flush=True)
        self._width = len(line)
