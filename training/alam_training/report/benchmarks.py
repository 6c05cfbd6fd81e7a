"""Tables of MetaWorld's and LIBERO's results: successes of each task."""

from pathlib import Path
from typing import Any

from alam_training.report.markdown import table

NOTE = (
    "Successes of the scripted experts, by the number of the task in its suite; docs/benchmarks.md "
    "names the tasks and what the experts fail at."
)


def libero(values: dict[str, Any], pictures: Path) -> str:
    """The experts of LIBERO's suites, a suite a column."""
    experts = values["experts"]
    numbers = sorted({_number(task) for found in experts.values() for task in found["per_task"]})
    rows = [
        [str(number), *(_successes(found["per_task"], number) for found in experts.values())]
        for number in numbers
    ]
    rows.append(["**all**", *(f"**{_counts(found)}**" for found in experts.values())])
    rows.append(["95 %", *(_interval(found) for found in experts.values())])
    rows.append(["mean steps", *(str(found["mean_steps"]) for found in experts.values())])
    return f"{NOTE}\n\n{table(['task', *experts], rows)}"


def _number(task: str) -> int:
    """Of a task's name, such as goal-3."""
    return int(task.rpartition("-")[2])


def _successes(tasks: dict[str, Any], number: int) -> str:
    found = [counts for task, counts in tasks.items() if _number(task) == number]
    return _counts(found[0]) if found else ""


def _counts(counts: dict[str, Any]) -> str:
    return f"{counts['successes']} of {counts['episodes']}"


def _interval(counts: dict[str, Any]) -> str:
    low, high = counts["ci95"]
    return f"{low:.0%} to {high:.0%}"


TABLES = {"libero": libero}
