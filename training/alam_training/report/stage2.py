"""The tables of stage 2 in docs/results.md, beside the paper's figures (its Tables 3 and 11)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alam_training.report.stage1 import table

Values = dict[str, Any]
Row = tuple[str, str, float | None]
# Key in the result file, words, the paper's success on MetaWorld MT50 with pi0 (%).
METHODS: tuple[Row, ...] = (
    ("none", "no latents", 47.9),
    ("lam_joint", "LAM, joint", 65.0),
    ("alam_two_stage", "ALAM, two stages", 68.7),
    ("alam_joint", "ALAM, joint", 85.0),
    ("alam_diffusion", "ALAM, joint diffusion", 65.6),
)
INTERVENTIONS: tuple[Row, ...] = (
    ("default", "as trained", 85.0),
    ("freeze", "latents stay noise", 76.3),
    ("block", "actions do not see latents", 76.4),
    ("shuffle", "latents shuffled in time", 75.3),
)
WORDS = {"lam_adjacent": "LAM, joint, neighbours", "alam_adjacent": "ALAM, joint, neighbours"}


def generation_ablation(values: Values, figures: Path) -> str:
    """The rows of Table 3, then whatever else was played alike, then Table 11."""
    parts = [
        "Trained and played alike; intervals are of all episodes together (Wilson, 95 %) and do not hold what differs from training to "
        "training, which stands beside. The paper's figures are of pi0 on 50 tasks. Latents are sums from the chunk's start (where they "
        "are shuffled, the sums are) unless they are called neighbours'.",
        _success(rows_of_methods(values), values),
    ]
    for title, played in interventions(values):
        parts += [
            f"{title} (Appendix F; the paper's are of ALAM, joint):",
            _success(INTERVENTIONS, played),
        ]
    if (figures / "generation_success.png").is_file():
        parts.append("![Success of each method and training](figures/generation_success.png)")
    return "\n\n".join(parts)


def interventions(values: Values) -> list[tuple[str, Values]]:
    """Title and rows of each group of interventions; whatever the method did untouched is its row
    "default".
    """
    found = []
    for group in sorted(key for key in values if key.startswith("interventions")):
        played = dict(values[group])
        folders = set(next(iter(played.values())).get("per_policy", {}))
        same = {
            key: value
            for key, value in values.items()
            if isinstance(value, dict) and set(value.get("per_policy", {})) == folders
        }
        method = next(iter(same), "") if folders else ""
        if method:
            played.setdefault("default", same[method])
        words = {key: words for key, words, _ in METHODS} | WORDS
        found.append(
            (f"Interventions when acting, on {words.get(method, method) or 'one method'}", played)
        )
    return found


def rows_of_methods(values: Values) -> list[Row]:
    """Key, words and the paper's figure of the methods of Table 3, then of whatever else was
    played.
    """
    known = {key for key, _, _ in METHODS}
    others = [
        key
        for key, value in values.items()
        if key not in known and isinstance(value, dict) and "success" in value
    ]
    return [*METHODS, *((key, WORDS.get(key, key.replace("_", " ")), None) for key in others)]


def _success(rows: Sequence[Row], values: Values) -> str:
    there = [
        (words, paper, values[key])
        for key, words, paper in rows
        if isinstance(values.get(key), dict)
    ]
    tasks = sorted({task for _, _, value in there for task in value.get("per_task", {})})
    body = []
    for words, paper, value in there:
        low, high = value["ci95"]
        each = value.get("per_policy", {})
        count = value["episodes"] // max(1, len(each))
        per_task = [value.get("per_task", {}).get(task) for task in tasks]
        body.append(
            [
                words,
                f"**{value['success']:.1%}** ({low:.1%} to {high:.1%})",
                str(value["episodes"]),
                ", ".join(f"{won / count:.0%}" for won in each.values()) or "one",
                *(
                    f"{counts['successes'] / counts['episodes']:.0%}" if counts else ""
                    for counts in per_task
                ),
                "" if paper is None else f"{paper:.1f}",
            ]
        )
    return table(["", "success", "episodes", "trainings", *tasks, "paper (%)"], body)


TABLES = {"generation_ablation": generation_ablation}
NOTES = {
    "latency_policy": "Milliseconds from an observation to its chunk. `small_cpu`: target 50 ms p50, joint at most 1.3 times action-only. "
    "`pi0_gpu`: pi0 at full size with random weights on two views, 16 steps, K = 10, bf16; target 1.5 times the floor. "
    "`pi0_cpu`: one observation and one denoising pass of the same on this machine's cores.",
}
