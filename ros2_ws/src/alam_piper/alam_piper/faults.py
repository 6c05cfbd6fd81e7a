"""Faults that an emulated arm can be given, by name, and the check that must catch each."""

from collections.abc import Callable
from dataclasses import dataclass

from alam_core.errors import UserError
from alam_piper.emulator import (
    COLLISION,
    ERROR,
    FIRMWARE,
    HOT,
    SENSOR,
    STATUS_STOPPED,
    ArmEmulator,
    firmware_limits,
)
from alam_piper.hardware import CTRL_MODE_CAN, MOVE_J

DRIVER_FRAMES = frozenset(range(0x261, 0x267))
STUCK_JOINT = 1  # joint 2
JUMP = 0.5  # rad


@dataclass(frozen=True)
class Fault:
    """A fault of the arm.

    what: one line for the user. check: name of the check that must catch it; ``tracking`` stands
    for the controller's comparison of set-point and measured position. at_start: whether the check
    is made before the arm is enabled, so that the fault must be there when the controller connects.
    inject, clear: begin and end it. ``clear`` restores the arm of a controller that is enabled.
    """

    what: str
    check: str
    inject: Callable[[ArmEmulator], None]
    clear: Callable[[ArmEmulator], None]
    at_start: bool = False


def _set(**values: object) -> Callable[[ArmEmulator], None]:
    """A function that sets attributes of the emulator."""

    def apply(emulator: ArmEmulator) -> None:
        for name, value in values.items():
            setattr(emulator, name, value)

    return apply


def _driver(joint: int, bits: int) -> Callable[[ArmEmulator], None]:
    """A function that sets the fault bits of one motor driver; ``joint`` counts from 1."""

    def apply(emulator: ArmEmulator) -> None:
        emulator.driver_bits[joint - 1] = bits

    return apply


def _collide(emulator: ArmEmulator) -> None:
    emulator.arm_status, emulator.driver_bits[1] = 7, COLLISION


def _part(emulator: ArmEmulator) -> None:
    emulator.arm_status, emulator.driver_bits[1] = 0, 0


def _lose_power(emulator: ArmEmulator) -> None:
    emulator.enabled[:] = False
    emulator.muted_frames = DRIVER_FRAMES


def _regain_power(emulator: ArmEmulator) -> None:
    emulator.enabled[:] = True
    emulator.muted_frames = frozenset()


def _corrupt_limits(emulator: ArmEmulator) -> None:
    limits = firmware_limits()
    for values in (limits.lower, limits.upper, limits.speed):
        values[2] = 0.0
    emulator.limits = limits


def _restore_limits(emulator: ArmEmulator) -> None:
    emulator.limits = firmware_limits()


def _stick(emulator: ArmEmulator) -> None:
    emulator.stuck[STUCK_JOINT] = True


def _release(emulator: ArmEmulator) -> None:
    emulator.stuck[STUCK_JOINT] = False


FAULTS: dict[str, Fault] = {
    "bus_silence": Fault(
        "no feedback at all",
        "feedback",
        _set(feedback_frozen=True),
        _set(feedback_frozen=False),
    ),
    "frames_missing": Fault(
        "joints 3 and 4 send no position",
        "feedback",
        _set(muted_frames=frozenset((0x2A6,))),
        _set(muted_frames=frozenset()),
    ),
    "power_loss": Fault(
        "the motors lose power and their drivers fall silent",
        "feedback",
        _lose_power,
        _regain_power,
    ),
    "leader": Fault(
        "the arm is set up as a leader",
        "feedback",
        _set(frame_offset=0x100),
        _set(frame_offset=0),
        at_start=True,
    ),
    "estop": Fault(
        "the emergency stop is pressed",
        "estop",
        _set(arm_status=STATUS_STOPPED),
        _set(arm_status=0),
    ),
    "collision": Fault("joint 2 reports a collision", "arm_status", _collide, _part),
    "error_code": Fault(
        "joint 3 does not communicate",
        "error_code",
        _set(error_code=0x0004),
        _set(error_code=0),
    ),
    "teach_button": Fault(
        "somebody presses the teach button",
        "teach",
        _set(ctrl_mode=2, teach_status=1),
        _set(ctrl_mode=CTRL_MODE_CAN, teach_status=0),
    ),
    "driver_error": Fault("joint 3's driver fails", "drivers", _driver(3, ERROR), _driver(3, 0)),
    "overheating": Fault("joint 4's motor is too hot", "drivers", _driver(4, HOT), _driver(4, 0)),
    "gripper_fault": Fault(
        "the gripper's sensor fails",
        "gripper",
        _set(gripper_bits=SENSOR),
        _set(gripper_bits=0),
    ),
    "foreign_writer": Fault(
        "another program commands the arm",
        "foreign_writer",
        _set(impostor=True),
        _set(impostor=False),
    ),
    "firmware_unknown": Fault(
        "the arm does not tell its firmware",
        "firmware",
        _set(firmware=b""),
        _set(firmware=FIRMWARE),
        at_start=True,
    ),
    "corrupt_limits": Fault(
        "the limits of joint 3 in the firmware are 0",
        "limits",
        _corrupt_limits,
        _restore_limits,
        at_start=True,
    ),
    "motors_off": Fault(
        "joint 6 loses its power",
        "power",
        lambda emulator: emulator.enabled.__setitem__(5, False),
        lambda emulator: emulator.enabled.__setitem__(5, True),
    ),
    "mit_mode": Fault(
        "another program has set MIT mode",
        "move_mode",
        _set(move_mode=4),
        _set(move_mode=MOVE_J),
    ),
    "stuck_joint": Fault("joint 2 does not follow", "tracking", _stick, _release),
    "feedback_jump": Fault(
        f"joint 1 is reported {JUMP} rad from where it is",
        "tracking",
        lambda emulator: emulator.shift.__setitem__(0, JUMP),
        lambda emulator: emulator.shift.__setitem__(slice(None), 0.0),
    ),
}


def find_fault(name: str) -> Fault:
    """A fault by its name. Raises UserError, with all names, if there is none."""
    if name not in FAULTS:
        raise UserError(f"fault '{name}' is unknown; the faults are: {', '.join(FAULTS)}")
    return FAULTS[name]
