"""The tables of the arm controller in docs/results.md."""

from pathlib import Path
from typing import Any

from alam_training.report.markdown import table

Values = dict[str, Any]
FAULTS = (
    "The node on the wall clock and on an emulated CAN bus, at its default limits, in a motion of "
    "all joints. *Hold*: from the fault to the last set-point that moves. *Overshoot*: how far a "
    "joint's set-point comes to rest beyond where it was when the fault could be known at the "
    "earliest; braking within the limits takes 0.15 rad and 0.30 s from a steady full speed, and "
    "up to 0.32 rad and 0.44 s while a joint still accelerates. *Recovered*: how often the arm "
    "went on once the cause was gone, and was reset and enabled; after a stall without either. At "
    "start: how often it could be enabled then. *Broken*: set-points that break a limit of "
    "position, velocity, acceleration, jerk or the workspace."
)
LOOP = (
    "The whole graph on the wall clock, one task after the other, with another program beside it. "
    "Jitter: deviation from 5 ms; p50 and p99 are medians over parts of 20 s, `p99_worst` is the "
    "worst part. `missed`: ticks that did not take place; `stalls`: gaps of more than 20 ms; "
    "`memory_growth_mib`: of the controller, from a minute after the start to the end."
)


def controller_faults(values: Values, _: Path) -> str:
    """The faults, one a row, then everything else."""
    rows = [[name, *_cells(fault)] for name, fault in values.get("faults", {}).items()]
    heads = ["fault", "n", "hold p50 (ms)", "max", "overshoot (rad)", "recovered", "broken"]
    others = _flat({key: value for key, value in values.items() if key != "faults"})
    return "\n\n".join([FAULTS, table(heads, rows), table(["value", "measured"], others)])


def _cells(fault: Values) -> list[str]:
    hold = fault["hold_ms"]
    reason = fault.get("why", "not measured")
    return [
        str(fault["n"]),
        f"{hold['p50']:.0f}" if hold else reason,
        f"{hold['max']:.0f}" if hold else "",
        "" if fault["overshoot_rad"] is None else f"{fault['overshoot_rad']:.3f}",
        f"{fault['recovered']} of {fault['n']}",
        str(fault["limits_broken"]),
    ]


def _flat(values: Values, name: str = "") -> list[list[str]]:
    """Nested values as rows (dotted name, text)."""
    found = []
    for key, value in values.items():
        path = f"{name}.{key}" if name else key
        if isinstance(value, dict):
            found += _flat(value, path)
        elif isinstance(value, list):
            found.append([path, ", ".join(map(str, value)) or "none"])
        else:
            found.append([path, "not measured" if value is None else str(value)])
    return found


TABLES = {"controller_faults": controller_faults}
NOTES = {"controller_loop": LOOP}
