"""When camera_sync publishes on the wall clock. No node is started."""

from collections.abc import Iterable

import numpy as np
import pytest

from alam_perception.pacing import Pacing
from alam_perception.sync import FrameSet, SkewWatch, Synchroniser


def serve(pacing: Pacing, arrivals: Iterable[tuple[float, str]], views: str = "ab") -> list:
    """Simulate camera_sync. arrivals: (time in s, view) of each frame, which is stamped when it
    arrives. Returns (time in s, ages in s of the views' frames) of each observation.
    """
    served: list[tuple[float, list[float]]] = []
    newest: dict[str, float] = {}
    sync = Synchroniser(list(views), ["j"], max_skew=50_000_000, max_age=10**12)

    def take(now: float) -> None:
        pacing.served(now)
        sync.add_joints(round(now * 1e9), round(now * 1e9), ["j"], [0.0])
        if isinstance(sync.take(round(now * 1e9)), FrameSet):
            served.append((now, [now - newest[view] for view in views]))

    for now, view in sorted(arrivals):
        deadline = pacing.deadline()
        if deadline is not None and deadline < now:
            take(deadline)
        newest[view] = now
        sync.add_image(view, round(now * 1e9), None)
        pacing.frame(now, sync.complete())
        if pacing.may_serve(now):
            take(now)
    return served


def camera(view: str, rate: float, phase: float = 0.0, jitter: float = 0.0, seconds: float = 30.0):
    """Arrivals (time in s, view) of a camera at ``rate`` Hz, shifted by ``phase`` s, with random
    jitter of up to ``jitter`` s.
    """
    rng = np.random.default_rng(ord(view))
    times = 100.0 + phase + np.arange(int(seconds * rate)) / rate
    return [(float(t), view) for t in times + rng.uniform(-jitter, jitter, len(times))]


@pytest.mark.parametrize("phase", [0.0, 0.03, 0.07])
@pytest.mark.parametrize("jitter", [0.0, 0.01])
def test_frames_at_the_rate_are_served_as_soon_as_the_set_is_complete(phase, jitter) -> None:
    """A timer that is not aligned to the frames would add up to one period, half of it on
    average.
    """
    served = serve(
        Pacing(0.1), camera("a", 10, phase, jitter) + camera("b", 10, phase + 0.002, jitter)
    )
    assert len(served) == 300
    assert max(min(ages) for _, ages in served) == 0.0  # served when the last frame arrives
    assert max(max(ages) for _, ages in served) <= 0.002 + 2 * jitter + 1e-9


@pytest.mark.parametrize("phase", [0.002, 0.01, 0.03])
@pytest.mark.parametrize("lost", "ab")
@pytest.mark.parametrize("rate", [5, 10])
def test_a_lost_frame_does_not_leave_the_cameras_mismatched(
    phase: float, lost: str, rate: float
) -> None:
    cameras = {"a": camera("a", rate), "b": camera("b", rate, phase)}
    del cameras[lost][10 * rate]
    served = serve(Pacing(0.1), cameras["a"] + cameras["b"])
    after = [ages for time, ages in served if time > 110.1 + phase]
    assert len(after) >= 19.5 * rate
    assert max(max(ages) for ages in after) <= phase + 1e-9


@pytest.mark.parametrize("rate", [15, 30, 60])
@pytest.mark.parametrize("phase", [0.0, 0.001, 0.005])
def test_a_frame_of_a_fast_camera_is_not_combined_with_the_one_before_its_match(
    rate: float, phase: float
) -> None:
    served = serve(Pacing(0.1), camera("a", rate) + camera("b", rate, phase))
    assert len(served) >= 295
    assert max(max(ages) for _, ages in served) <= phase + 1e-9


@pytest.mark.parametrize("rate", [9.95, 10.0])
def test_a_late_frame_does_not_put_off_the_next_one(rate: float) -> None:
    """As from a camera on a busy machine: the frame after a late one arrives on time."""
    rng = np.random.default_rng(0)
    late = np.where(rng.random(300) < 0.3, rng.uniform(0.0, 0.08, 300), 0.0)
    times = 100.0 + np.arange(300) / rate + late
    served = serve(Pacing(0.1), [(t, view) for t in times for view in "ab"])
    assert len(served) == 300
    assert max(max(ages) for _, ages in served) == 0.0  # served when it arrives


def test_cameras_in_opposite_phase_are_served_with_each_others_newest_frame() -> None:
    served = serve(Pacing(0.1), camera("a", 10) + camera("b", 10, 0.04))
    assert len(served) >= 299
    assert max(max(ages) for _, ages in served[1:]) <= 0.06 + 1e-9


@pytest.mark.parametrize("rate", [9.0, 10.1, 30.0, 60.0, 100.0])
def test_the_maximum_rate_is_kept_and_frames_are_new(rate: float) -> None:
    served = serve(Pacing(0.1), camera("a", rate) + camera("b", rate, 0.001))
    times = np.array([time for time, _ in served])
    assert len(served) <= 300 + 1 and len(served) >= 0.95 * min(10.0, rate) * 30
    for first in range(0, len(times) - 50, 10):  # in every window
        assert times[first + 50] - times[first] >= 5.0 - 0.05 - 1e-9
    assert max(min(ages) for _, ages in served) <= 0.001


def test_a_camera_that_is_late_or_dead_is_not_waited_for_longer_than_its_deadline() -> None:
    dead = [entry for entry in camera("b", 10) if entry[0] < 110.0]
    served = serve(Pacing(0.1), camera("a", 10) + dead)
    after = [(time, ages) for time, ages in served if time > 110.1]
    assert len(after) >= 190  # at the rate
    assert max(ages[0] for _, ages in after) <= 0.075 + 1e-9


def test_a_set_that_is_complete_too_early_is_served_later_if_no_other_frame_arrives() -> None:
    pacing = Pacing(0.1)
    assert [time for time, _ in serve(pacing, [(1.0, "a"), (1.03, "a"), (3.0, "a")], "a")] == [
        1.0,
        pytest.approx(1.15),
        3.0,
    ]


def test_it_continues_after_the_clock_is_set_back() -> None:
    pacing = Pacing(0.1)
    pacing.frame(5000.0, complete=True)
    pacing.served(5000.0)
    pacing.frame(10.0, complete=False)
    assert not pacing.may_serve(10.0) and pacing.deadline() <= 10.1
    pacing.frame(10.01, complete=True)
    assert pacing.may_serve(10.01)


@pytest.mark.parametrize("phase", [0.0, 0.02, 0.045])
def test_a_lost_frame_now_and_then_is_no_news(phase: float) -> None:
    lossy = [frame for i, frame in enumerate(camera("b", 10.0, phase, 0.003)) if i % 25]
    served = serve(Pacing(0.1), [*camera("a", 10.0, 0.0, 0.003), *lossy])
    watch = SkewWatch(50_000_000)
    skews = [abs(ages[0] - ages[1]) > 0.05 for _, ages in served]
    reports = []
    for skewed in skews:
        watch.add(skewed)
        reports.append(watch.report())
    assert any(skews) and not any(reports)
