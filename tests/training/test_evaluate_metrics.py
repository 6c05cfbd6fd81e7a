"""What is counted over episodes."""

import pytest

from alam_training.episodes.metrics import EpisodeResult, success_metrics


def test_the_confidence_interval_is_wilsons():
    done = [EpisodeResult(seed, seed < 41, 10, "") for seed in range(50)]
    assert success_metrics(done)["ci95"] == [0.692, 0.9023]  # 41 of 50
    assert success_metrics(done[:41])["ci95"][1] == 1.0
    assert not {"per_task", "per_group", "macro_average"} & success_metrics(done).keys()


def test_success_is_averaged_over_the_tiers_whatever_their_sizes():
    def tier(group, successes, episodes):
        return [
            EpisodeResult(seed, seed < successes, 10, f"{group}-{seed % 2}", group=group)
            for seed in range(episodes)
        ]

    values = success_metrics(tier("easy", 20, 20) + tier("hard", 1, 4) + tier("medium", 2, 4))
    assert values["macro_average"] == pytest.approx((1 + 0.25 + 0.5) / 3)
    assert values["success"] == pytest.approx(23 / 28)
    assert values["per_group"]["hard"] == {
        "episodes": 4,
        "successes": 1,
        "success": 0.25,
        "ci95": [0.0456, 0.6994],
    }
    assert values["per_task"]["hard-0"]["successes"] == 1 and len(values["per_task"]) == 6
