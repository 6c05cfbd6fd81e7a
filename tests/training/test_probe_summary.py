"""The summary of probed runs: means and deviations over seeds, ratios, and the rows of Table 4."""

import pytest

from alam_training.stage1.summary import ablation_values, over_seeds, ratios, world_values

TIMES = ("1", "2", "3", "4", "5")


def metrics(add: float, rev: float, centred: float = 1.0, score: float = 20.0) -> dict[str, object]:
    table = {t: float(t) for t in TIMES}
    return {
        **{
            f"{name}{way}": {t: score - float(t) for t in TIMES}
            for name in ("psnr", "ssim", "lpips")
            for way in ("", "_cum", "_copy")
        },
        "add_rel": {t: add * float(t) for t in TIMES},
        "rev_rel": {t: rev for t in TIMES},
        "add_centred": {t: centred for t in TIMES},
        "rev_centred": table,
        "codebook_perplexity": None,
    }


def test_means_deviations_and_ratios() -> None:
    merged = over_seeds({3: metrics(1.0, 2.0), 5: metrics(3.0, 2.0)})
    assert (
        merged["seeds"] == [3, 5]
        and merged["add_rel"]["5"] == 10
        and merged["add_rel_std"]["5"] == pytest.approx(50**0.5, rel=1e-5)
    )
    assert (
        merged["rev_rel_std"]["1"] == 0
        and merged["codebook_perplexity"] is None
        and merged["codebook_perplexity_std"] is None
    )
    alam = metrics(0.5, 0.1)
    assert ratios(merged, alam) == {"add_5k": 4, "rev_5k": 20, "rev_k": 20}
    assert ratios(merged, alam, True) == {"add_5k": 0.4, "rev_5k": 50, "rev_k": 10}
    assert ratios(merged, metrics(0.5, 0.0))["rev_k"] is None


def test_a_world_without_lam_or_with_a_missing_seed_is_reported_without_them() -> None:
    one = metrics(1, 1)
    assert not {"ratio", "lam"} & world_values({"alam": {0: one}}, one).keys()
    worlds = {
        "north": {"lam": {0: one, 1: metrics(3, 1)}, "alam": {0: one}},
        "south": {"lam": {0: metrics(5, 1)}, "alam": {0: one}, "no_rev": {0: one}},
    }
    values = ablation_values(worlds)
    assert (
        values["lam"]["seeds"] == [0] and values["lam"]["add_rel"]["1"] == 3
    )  # the seed that both worlds have
    assert (
        values["worlds"]["north"]["lam"]["seeds"] == [0, 1]
        and "no_rev" not in values
        and "no_rev" in values["worlds"]["south"]
    )
    assert world_values(worlds["north"], one)["alam"]["psnr_change"]["5"] == -4
