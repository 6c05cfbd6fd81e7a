"""Checks of the episodes as wholes: how many, how long, with which instructions, and duplicates."""

import hashlib
from collections import defaultdict

import numpy as np

from alam_core.data.checks.finding import Finding, episodes_called
from alam_core.data.checks.recorded import Recorded
from alam_core.data.instructions import plain
from alam_core.errors import listing

FEW = 10  # episodes
SHORT = 0.2  # of the median length
COMPARED = 300  # instructions; more are not compared for typing errors, which takes their square
LONG_WORD = 5  # letters; shorter words that differ in one letter are often different words


def check_episodes(recorded: Recorded) -> list[Finding]:
    """Findings about number and lengths of the episodes, their instructions, and duplicates."""
    return check_lengths(recorded) + check_tasks(recorded) + check_duplicates(recorded)


def check_lengths(recorded: Recorded) -> list[Finding]:
    """No rows, far fewer rows than the other episodes have, and few episodes."""
    findings = []
    lengths = {e: len(episode.state) for e, episode in recorded.episodes.items()}
    if empty := [e for e, length in lengths.items() if not length]:
        findings.append(
            Finding("error", episodes_called(empty), "there are no rows: remove the episode")
        )
    median = float(np.median([length for length in lengths.values() if length] or [0]))
    if short := [e for e, length in lengths.items() if 0 < length < SHORT * median]:
        findings.append(
            Finding(
                "warning",
                episodes_called(short),
                f"only {min(lengths[e] for e in short)} rows, where the median episode has "
                f"{median:g}: if the recording was cut off, remove it",
            )
        )
    if len(lengths) == 1:
        findings.append(
            Finding(
                "warning",
                "episodes",
                "a single usable episode cannot be split into training and held-out episodes: "
                "record more, or train with --held_out 0",
            )
        )
    elif 1 < len(lengths) < FEW:
        findings.append(
            Finding("note", "episodes", f"{len(lengths)} usable episodes are few to learn from")
        )
    return findings


def check_tasks(recorded: Recorded) -> list[Finding]:
    """Empty instructions, and instructions that differ in spelling only."""
    by_task: dict[str, list[int]] = defaultdict(list)
    for e, episode in recorded.episodes.items():
        for task in dict.fromkeys(episode.tasks.tolist()):
            by_task[task].append(e)
    findings = []
    if empty := [e for task, numbers in by_task.items() if not plain(task) for e in numbers]:
        findings.append(
            Finding(
                "error",
                episodes_called(sorted(empty)),
                "no instruction: give each episode one, for example with alam convert --task",
            )
        )
    differing = {
        e: stated
        for e, stated in recorded.stated_tasks.items()
        if stated and {*stated} != {*recorded.episodes[e].tasks.tolist()}
    }
    if differing:
        e = min(differing)
        findings.append(
            Finding(
                "warning",
                episodes_called(sorted(differing)),
                f"meta/episodes says {listing(map(repr, differing[e]))}, but the rows of episode "
                f"{e} say {listing(map(repr, recorded.episodes[e].tasks))}: the rows are read; "
                "correct what is wrong",
            )
        )
    spelled: dict[str, list[str]] = defaultdict(list)  # instruction -> its spellings
    for task in by_task:
        if plain(task):
            spelled[plain(task)].append(task)
    for spellings in spelled.values():
        if len(spellings) > 1:
            counts = listing(f"'{task}' ({len(by_task[task])})" for task in spellings)
            findings.append(
                Finding(
                    "warning",
                    "tasks",
                    f"the same instruction is written in {len(spellings)} ways: {counts}; "
                    "write it in one way",
                )
            )
    distinct = sorted(spelled) if len(spelled) <= COMPARED else []
    for i, one in enumerate(distinct):
        for other in distinct[i + 1 :]:
            if typo := _one_letter_apart(one, other):
                findings.append(
                    Finding(
                        "warning",
                        "tasks",
                        f"'{one}' and '{other}' differ in one letter "
                        f"({typo[0]}, {typo[1]}): if that is a typing error, correct it",
                    )
                )
    return findings


def check_duplicates(recorded: Recorded) -> list[Finding]:
    """Episodes with the same states and actions, row by row."""
    same: dict[bytes, list[int]] = defaultdict(list)
    for e, episode in recorded.episodes.items():
        if episode.state.size or episode.action.size:
            both = np.hstack([episode.state, episode.action])
            same[hashlib.sha256(np.ascontiguousarray(both).data).digest()].append(e)
    return [
        Finding(
            "warning",
            episodes_called(numbers),
            "the same states and actions, row by row: a copy? It counts twice in training, and may "
            "be in the held-out set too; remove it",
        )
        for numbers in same.values()
        if len(numbers) > 1
    ]


def _one_letter_apart(one: str, other: str) -> tuple[str, str] | None:
    """The two words, if only one word differs, by one letter that is other, added or missing."""
    these, those = one.split(), other.split()
    if len(these) != len(those):
        return None
    different = [pair for pair in zip(these, those, strict=True) if pair[0] != pair[1]]
    if len(different) != 1:
        return None
    short, long = sorted(different[0], key=len)
    if len(long) < LONG_WORD or len(long) - len(short) > 1 or any(map(str.isdigit, long)):
        return None
    same = next((i for i, (a, b) in enumerate(zip(short, long, strict=False)) if a != b), None)
    same = len(short) if same is None else same
    rest = short[same:] if len(long) > len(short) else short[same + 1 :]
    return different[0] if rest == long[same + 1 :] else None
