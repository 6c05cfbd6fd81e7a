"""Write docs/results.md from the files in results/: what was measured, on which machine, and the
commands that measure it again.

    python training/report.py
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alam_core.config import parse_args
from alam_core.errors import UserError
from alam_core.files import replacing_file
from alam_training.report import benchmarks, controller, few_labels, stage1, stage2
from alam_training.report.markdown import table

TABLES = stage1.TABLES | stage2.TABLES | few_labels.TABLES | controller.TABLES | benchmarks.TABLES
NOTES = stage1.NOTES | stage2.NOTES | controller.NOTES

TITLES = {
    "demo": "The demo",
    "piper_place": "The Piper's first task: success on unseen seeds",
    "piper_encoders": "The Piper's first task: success by encoder, on validation seeds",
    "generation_ablation": "Stage 2: ways to generate transitions (Tables 3 and 11), on five "
    "MetaWorld tasks",
    "few_labels": "Stage 2: few labels, and video without labels",
    "latency_policy": "Latency of a policy, and the cost of generating latents",
    "latency_ros": "Latencies through ROS, on the wall clock",
    "controller_faults": "The arm controller: faults and random messages",
    "controller_loop": "The arm controller: its loop while the whole graph runs",
    "transition_probes": "Stage 1: algebra, reconstruction and health of z on held-out episodes",
    "transition_ablation": "Stage 1: the variants of Table 4",
    "data_throughput": "Stage 1: reading video",
    "pretraining_paper_size": "Stage 1: the paper's model size",
    "training_scale": "Training: several processes, killed and resumed runs",
    "libero": "LIBERO: the scripted experts",
    "evaluation_speed": "Evaluation: batched, in several workers, on a Ray cluster",
    "ros_parity": "Episodes through ROS and direct ones",
    "busy_tests": "Tests on a busy machine",
}


@dataclass
class ReportConfig:
    """What to report.

    Args:
        results: folder with one JSON file per measurement.
        out: Markdown file to write.
    """

    results: str = "results"
    out: str = "docs/results.md"


def rows(values: Any, name: str = "") -> list[tuple[str, str]]:
    """Nested values as rows (dotted name, text). Where there are episodes and successes, a row with
    the success rate comes first.
    """
    if isinstance(values, dict):
        found = [
            row
            for key, value in values.items()
            for row in rows(value, f"{name}.{key}" if name else key)
        ]
        if {"episodes", "successes"} <= values.keys() and values["episodes"]:
            rate = f"{100 * values['successes'] / values['episodes']:.0f} %"
            found.insert(
                0,
                (
                    f"**{name or 'success rate'}**",
                    f"**{rate}** ({values['successes']} of {values['episodes']})",
                ),
            )
        return found
    if isinstance(values, list):
        return [(name, ", ".join(map(_text, values)) or "none")]
    return [(name, "not measured" if values is None else _text(values))]


def _text(value: Any) -> str:
    """A value as text; floats have four significant digits, or no decimals from 10,000 on."""
    if not isinstance(value, float):
        return str(value)
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:.0f}"


def section(result: dict[str, Any], pictures: Path) -> str:
    """One measurement as Markdown, with its pictures if they are in the folder ``pictures``."""
    machine, seeds = result["machine"], result["seeds"]
    name, values = result["name"], result["values"]
    if name in TABLES:
        body = TABLES[name](values, pictures)
    else:
        body = table(["value", "measured"], rows(values))
        body = f"{NOTES[name]}\n\n{body}" if name in NOTES else body
    facts = [
        f"{result['date'][:10]}, commit {result['commit']}",
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, "
        f"{machine['gpu'] or 'no GPU'}",
        f"Python {machine['python']}, torch {machine['torch']}",
        *([f"seeds {seeds[0]} to {seeds[-1]}"] if seeds else []),
    ]
    commands = result["command"].replace(" && ", "\n")
    return f"## {TITLES.get(name, name)}\n\n```\n{commands}\n```\n\n{'; '.join(facts)}\n\n{body}\n"


def _anchor(title: str) -> str:
    """The link target that code hosts give a heading."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def main() -> None:
    config = parse_args(ReportConfig, "Write docs/results.md from the files in results/.")
    found = {file.stem: file for file in sorted(Path(config.results).glob("*.json"))}
    files = [found[name] for name in dict.fromkeys([*TITLES, *found]) if name in found]
    if not files:
        raise UserError(
            f"no result in '{config.results}': measure something first, for example with "
            "'make demo'"
        )
    titles, results = [], []
    for file in files:
        try:
            result = json.loads(file.read_text())
            results.append(section(result, Path(config.out).parent / "figures"))
            titles.append(TITLES.get(result["name"], result["name"]))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"'{file}' is not a result file ({error}): measure it again") from None
    header = (
        "# Results\n\nGenerated by `python training/report.py` from the files in `results/`; do "
        "not edit.\n\n"
    )
    header += "".join(f"- [{title}](#{_anchor(title)})\n" for title in titles) + "\n"
    out = Path(config.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with replacing_file(out) as temporary:
        temporary.write_text(header + "\n".join(results))
    print(f"{out}: {len(results)} measurements")
