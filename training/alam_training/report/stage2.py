"""The tables of stage 2 in docs/results.md, next to the paper's values (its Tables 3 and 11)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alam_training.methods import INTERVENTIONS, POLICIES, Method, label
from alam_training.report.markdown import table

Values = dict[str, Any]


def generation_ablation(values: Values, pictures: Path) -> str:
    """The rows of Table 3, then the other policies that were evaluated, then Table 11."""
    parts = [
        "Same training budget and evaluation for all rows. The 95 % intervals (Wilson) are over "
        "all episodes together; they do not include the variation between trainings, whose success "
        "rates are listed one by one. The paper's values are for pi0 on 50 tasks. Latents are sums "
        'from the start of the chunk ("shuffled" shuffles these sums) except in rows called '
        '"adjacent frames".',
        _success(compared_methods(values), values),
    ]
    for title, played in interventions(values):
        parts += [
            f"{title} (Appendix F; the paper's values are for ALAM, joint):",
            _success(INTERVENTIONS, played),
        ]
    if (pictures / "generation_success.png").is_file():
        parts.append("![Success of each method and training](figures/generation_success.png)")
    return "\n\n".join(parts)


def interventions(values: Values) -> list[tuple[str, Values]]:
    """Title and results of each group of interventions. The row "default" is the result of the
    same policies without an intervention, if the group has none of its own.
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
        name = label(method) if method else "one method"
        found.append((f"Interventions during evaluation, on {name}", played))
    return found


def compared_methods(values: Values) -> list[Method]:
    """The methods of Table 3, then the others that the result file has."""
    known = {method.key for method in POLICIES}
    others = [
        Method(key, label(key))
        for key, value in values.items()
        if key not in known and isinstance(value, dict) and "success" in value
    ]
    return [*POLICIES, *others]


def _success(methods: Sequence[Method], values: Values) -> str:
    rows = [
        (method, values[method.key])
        for method in methods
        if isinstance(values.get(method.key), dict)
    ]
    tasks = sorted({task for _, value in rows for task in value.get("per_task", {})})
    body = []
    for method, value in rows:
        low, high = value["ci95"]
        trainings = value.get("per_policy", {})
        count = value["episodes"] // max(1, len(trainings))  # episodes of one training
        per_task = [value.get("per_task", {}).get(task) for task in tasks]
        body.append(
            [
                method.label,
                f"**{value['success']:.1%}** ({low:.1%} to {high:.1%})",
                str(value["episodes"]),
                ", ".join(f"{won / count:.0%}" for won in trainings.values()) or "one",
                *(
                    f"{counts['successes'] / counts['episodes']:.0%}" if counts else ""
                    for counts in per_task
                ),
                "" if method.paper is None else f"{method.paper:.1f}",
            ]
        )
    heads = ["method", "success (95 % interval)", "episodes", "each training", *tasks, "paper (%)"]
    return table(heads, body)


TABLES = {"generation_ablation": generation_ablation}
NOTES = {
    "latency_policy": "Milliseconds from an observation to its chunk. `small_cpu`: the targets are "
    "a median of at most 50 ms and at most 1.3 times the time of action-only generation. "
    "`pi0_gpu`: pi0 at full size with random weights on two views, 16 steps, K = 10, bf16; the "
    "target is at most 1.5 times the floor, a lower bound from this GPU's memory bandwidth and "
    "arithmetic rate. `pi0_cpu`: one observation and one denoising pass of the same model on this "
    "machine's cores.",
}
