"""When the simulator may tick. No node is started."""

import pytest

from alam_sim.pacing import NodeWait, Throttle

MS = 1_000_000


def test_time_is_at_most_max_lag_ahead_of_what_each_node_has_processed() -> None:
    wait = NodeWait(max_lag=100 * MS, patience=2.0)
    assert wait.holding(10_000 * MS, now=0.0) == []  # no node to wait for
    assert wait.heard("policy", 1000 * MS)
    assert wait.heard("latent_encoder", 1100 * MS)
    assert not wait.heard("policy", 1000 * MS)
    assert wait.holding(1100 * MS, now=1.0) == []
    assert wait.holding(1105 * MS, now=1.0) == ["policy"]
    assert wait.holding(1205 * MS, now=1.1) == ["policy", "latent_encoder"]
    wait.heard("policy", 1100 * MS)
    assert wait.holding(1200 * MS, now=1.2) == []


def test_a_silent_node_is_dropped_until_it_reports_again() -> None:
    wait = NodeWait(max_lag=100 * MS, patience=2.0)
    wait.heard("policy", 1000 * MS)
    # Patience counts from when the simulator began to wait, not from the last report.
    assert wait.holding(1105 * MS, now=50.0) == ["policy"]
    assert wait.holding(1105 * MS, now=51.9) == ["policy"]
    assert wait.dropped() == []
    assert wait.holding(1105 * MS, now=52.1) == []
    assert wait.dropped() == ["policy"]
    assert wait.holding(9000 * MS, now=60.0) == []
    assert wait.heard("policy", 9000 * MS)
    assert wait.dropped() == []
    assert wait.holding(9105 * MS, now=60.0) == ["policy"]


def test_patience_restarts_with_every_wait() -> None:
    wait = NodeWait(max_lag=100 * MS, patience=2.0)
    wait.heard("policy", 1000 * MS)
    assert wait.holding(1105 * MS, now=1.0) == ["policy"]
    wait.heard("policy", 1100 * MS)
    assert wait.holding(1205 * MS, now=2.9) == ["policy"]
    assert wait.holding(1205 * MS, now=4.8) == ["policy"]


def run(throttle: Throttle, seconds: float, cost: float) -> int:
    """Number of ticks within ``seconds`` s if each takes ``cost`` s."""
    now, ticks = 100.0, 0
    while now < 100.0 + seconds:
        delay = throttle.wait(now)
        if delay > 0:
            now += delay
            continue
        throttle.ticked(now)
        now += cost
        ticks += 1
    return ticks


@pytest.mark.parametrize(("speed", "expected"), [(1.0, 2000), (0.5, 1000), (4.0, 8000)])
def test_speed_is_kept(speed: float, expected: int) -> None:
    throttle = Throttle(0.005, speed)
    assert run(throttle, 10.0, 0.0005) == pytest.approx(expected, abs=2)
    assert throttle.lost == 0


def test_without_a_speed_limit_there_are_no_pauses() -> None:
    assert run(Throttle(0.005, 0.0), 1.0, 0.001) == pytest.approx(1000, abs=2)


def test_a_short_delay_is_caught_up_and_a_long_one_is_lost() -> None:
    throttle = Throttle(0.005, 1.0, slack=0.05)
    throttle.ticked(0.0)
    throttle.ticked(0.045)  # 40 ms late
    assert throttle.wait(0.045) == 0.0
    assert throttle.lost == 0
    throttle.ticked(1.0)
    assert throttle.lost == pytest.approx(1.0 - 0.01 - 0.05)
    due = 0
    while throttle.wait(1.0) == 0.0:
        throttle.ticked(1.0)
        due += 1
    assert due <= 11  # no more than the slack is caught up with
