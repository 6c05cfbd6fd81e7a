"""The benchmarks of the arm controller run at toy size and write what they must."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import can
import numpy as np
import pytest
from conftest import ROOT

from alam_core.errors import UserError
from alam_demo.controller_faults import TRIES, ControllerFaultsConfig, sent, speed_by_arrival
from alam_demo.controller_loop import ControllerLoopConfig, LoopRecord
from alam_demo.fault_table import ROWS_BY_NAME
from alam_demo.wire import RecordingBus, in_si_units
from alam_piper.faults import FAULTS
from alam_piper.parameters import PERIOD

BENCHMARK = str(ROOT / "training" / "benchmark.py")


@pytest.mark.slow
def test_faults_are_measured(ros, start, tmp_path: Path) -> None:
    words = ["--repetitions", "2", "--faults", "lost_0x2a1,huge_targets,firmware_unknown"]
    words += ["--fuzz_messages", "500", "--results", str(tmp_path)]
    process = start("benchmark", [sys.executable, BENCHMARK, "controller_faults", *words])
    ros.wait_for(lambda: process.poll() is not None, 480, "the benchmark to end")
    assert process.poll() == 0, process.last_line()
    values = json.loads((tmp_path / "controller_faults.json").read_text())["values"]
    assert values["limits_broken"] == values["unclaimed"] == 0 and values["set_points"] > 300
    assert values["fuzz"] | {"messages": 500, "limits_broken": 0, "crashes": 0} == values["fuzz"]
    lost, huge, unknown = values["faults"].values()
    for row in (lost, huge, unknown):  # fewer repetitions count if this machine is too busy
        assert row["recovered"] == row["n"] and (row["n"] == 2 or row["starved"] >= TRIES)
    assert lost["named"] == lost["n"] and unknown["named"] == unknown["n"]
    if lost["n"]:
        assert 100.0 < lost["hold_ms"]["p50"] <= lost["hold_ms"]["max"] < 5000.0
        assert 0.0 <= lost["overshoot_rad"] < 1.0
    assert huge["hold_ms"] is None
    assert huge["chunks_refused"] >= huge["n"] and "refused" in huge["why"]
    assert unknown["moved_before"] == 0


@pytest.mark.slow
def test_the_loop_is_measured(ros, start, tmp_path: Path) -> None:
    words = ["--minutes", "0.2", "--beside", "burn", "--results", str(tmp_path)]
    process = start("benchmark", [sys.executable, BENCHMARK, "controller_loop", *words])
    ros.wait_for(lambda: process.poll() is not None, 300, "the benchmark to end")
    assert (tmp_path / "controller_loop.json").is_file(), process.last_line()
    values = json.loads((tmp_path / "controller_loop.json").read_text())["values"]
    assert values["minutes"] >= 0.2 and values["episodes"] >= 1
    assert 0.0 <= values["jitter_ms"]["p50"] <= values["jitter_ms"]["max"]
    assert values["memory_mib"] > 10.0 and values["missed"] >= 0
    assert None not in (values["stalls"], values["chunks_rejected"], values["memory_growth_mib"])


def test_every_fault_of_the_emulator_is_measured() -> None:
    assert FAULTS.keys() <= ROWS_BY_NAME.keys()
    assert [n for n, row in ROWS_BY_NAME.items() if row.expect == "start"][:3] == [
        name for name, fault in FAULTS.items() if fault.at_start
    ]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"faults": "estop,nonsense"}, "fault 'nonsense' is unknown; the faults are: bus_silence"),
        ({"repetitions": 0}, "repetitions must be at least 1"),
    ],
)
def test_wrong_options_are_refused(options: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        ControllerFaultsConfig(**options)
    with pytest.raises(UserError, match="minutes must be positive"):
        ControllerLoopConfig(minutes=0.0)


def test_faults_are_chosen_by_name() -> None:
    assert ControllerFaultsConfig(faults="estop, leader").names() == ["estop", "leader"]
    assert ControllerFaultsConfig(faults="none").names() == []
    assert ControllerFaultsConfig().names() == list(ROWS_BY_NAME)


def frame(identifier: int, data: bytes, sender: str, moment: float) -> can.Message:
    return can.Message(
        arbitration_id=identifier,
        data=data,
        is_extended_id=False,
        channel=sender,
        timestamp=moment,
    )


class OneWayBus:
    """Returns what it sends, as a multicast bus does, and then the frames that are waiting."""

    def __init__(self, waiting: list[can.Message]) -> None:
        self.waiting = waiting

    def send(self, message: can.Message) -> None:
        self.waiting.insert(0, frame(message.arbitration_id, bytes(message.data), "own", 0.0))

    def recv(self, timeout: float) -> can.Message | None:
        return self.waiting.pop(0) if self.waiting else None


def test_set_points_are_recorded_from_the_frames_of_others() -> None:
    unit = (1000).to_bytes(4, "big")
    grip = frame(0x159, unit + bytes([0, 0, 1, 0]), "node", 1.0)
    parts = [frame(i, unit + unit, "node", 1.0) for i in (0x155, 0x156, 0x157)]
    own = frame(0x155, bytes(8), "own", 1.0)
    bus = RecordingBus(OneWayBus([grip, parts[0], own, *parts[1:], parts[0], parts[2]]))
    bus.listen(0.0)
    times, points = in_si_units(bus.set_points)
    assert times.tolist() == [1.0] and bus.incomplete == 1 and bus.changes == []
    np.testing.assert_allclose(points[0], [*[np.radians(1.0)] * 6, 0.001])
    heard = [bus.recv() for _ in range(6)]
    assert own not in heard and heard[0] is grip


def test_set_points_are_taken_from_the_status_of_each_tick() -> None:
    def told(tick: int, state: str) -> tuple[int, str, np.ndarray]:
        return round(tick * PERIOD * 1e9), state, np.full(7, float(tick))

    ticks = [told(0, "DISABLED"), told(1, "HOLDING"), told(2, "EXECUTING"), told(2, "EXECUTING")]
    ticks += [told(3, "FAULT"), told(4, "HOLDING")]
    times, points, fresh = sent(ticks)
    np.testing.assert_allclose(times, np.arange(1, 5) * PERIOD)
    assert points[:, 0].tolist() == [1.0, 2.0, 3.0, 4.0]
    assert fresh.tolist() == [True, False, False, True]


def test_speed_is_measured_by_arrival() -> None:
    times = np.arange(100) * PERIOD
    points = np.zeros((100, 7))
    points[:, 2] = 0.8 * times
    assert speed_by_arrival(times, points) == pytest.approx(0.8, rel=0.01)
    assert speed_by_arrival(times[:1], points[:1]) == 0.0


def test_ticks_that_did_not_take_place_and_faults_are_counted() -> None:
    record = LoopRecord()
    for tick in [0, 4, 8, 8, 12, 24, 28]:  # two regular ones are left out
        state = "FAULT" if tick == 28 else "HOLDING"
        nanoseconds = round(tick * PERIOD * 1e9)
        stamp = SimpleNamespace(sec=0, nanosec=nanoseconds)
        record.take_status(
            SimpleNamespace(header=SimpleNamespace(stamp=stamp), state=state, reason="", sequence=0)
        )
    assert record.missed == 8 and record.false_faults == 1
