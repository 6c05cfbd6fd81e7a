"""Success by the number of labelled demonstrations: a table and a plot, from
results/few_labels.json.
"""

import json
from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt

from alam_core.errors import UserError
from alam_training.methods import arm_label, arm_place
from alam_training.report.markdown import table
from alam_training.report.plots import save
from alam_training.report.probe_success import picture_name

Values = dict[str, Any]
FILE = "few_labels"
NOTE = (
    "Success on unseen seeds by the number of labelled demonstrations a task. *+ video*: the "
    "policy also learns from the demonstrations whose labels are dropped, as video. The intervals "
    "(95 %, Wilson) are over all episodes together; in parentheses the successes of each training."
)


def few_labels(values: Values, pictures: Path) -> str:
    """For each world a table, one arm a row, and the plot if it exists."""
    parts = [NOTE]
    for world, arms in values.items():
        numbers = sorted({int(n) for arm in arms.values() for n in arm})
        rows = [
            [arm_label(key), *(_cell(arms[key].get(str(n))) for n in numbers)]
            for key in sorted(arms, key=arm_place)
        ]
        parts += [f"### {world}", table(["arm", *(f"{n} labels" for n in numbers)], rows)]
        picture = f"{FILE}_{world}.png"
        if (pictures / picture).is_file():
            parts.append(f"![Success by number of labels in {world}](figures/{picture})")
        if (pictures / picture_name(world)).is_file():
            parts.append(f"![Success by action probe in {world}](figures/{picture_name(world)})")
    return "\n\n".join(parts)


def _cell(value: Values | None) -> str:
    if not value:
        return ""
    low, high = value["ci95"]
    trainings = value.get("per_training", [])
    each = f" ({', '.join(map(str, trainings))})" if len(trainings) > 1 else ""
    return (
        f"**{value['success']:.0%}** ({low:.0%} to {high:.0%}), {value['episodes']} episodes{each}"
    )


def draw_few_labels(file: Path, out: Path) -> list[Path]:
    """A picture for each world in ``out``: success against the number of labels. Raises UserError
    if ``file`` is not a result of the study.
    """
    written = []
    try:
        worlds = json.loads(file.read_text())["values"]
        for world, arms in worlds.items():
            figure, axes = plt.subplots(figsize=(6.4, 4.0), layout="constrained")
            for number, key in enumerate(sorted(arms, key=arm_place)):
                points = sorted((int(n), value) for n, value in arms[key].items())
                success = [100 * value["success"] for _, value in points]
                below = [s - 100 * v["ci95"][0] for s, (_, v) in zip(success, points, strict=True)]
                above = [100 * v["ci95"][1] - s for s, (_, v) in zip(success, points, strict=True)]
                axes.errorbar(
                    [n * 1.02**number for n, _ in points],  # beside each other
                    success,
                    [below, above],
                    fmt="o-",
                    capsize=2,
                    color=f"C{number % 10}",
                    label=arm_label(key),
                )
            axes.set(
                xscale="log", xlabel="labelled demonstrations a task", ylabel="success (%)", ylim=0
            )
            ticks = sorted({int(n) for arm in arms.values() for n in arm})
            axes.set_xticks(ticks, [str(n) for n in ticks])
            axes.minorticks_off()
            axes.grid(alpha=0.3)
            axes.legend(fontsize="small")
            written.append(save(figure, out / f"{FILE}_{world}.png"))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"'{file}' is no result of the study of few labels ({error!r})") from None
    return written


TABLES = {FILE: few_labels}
