"""The progress bar of commands that go through episodes."""

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


def episode_progress(console: Console | None = None) -> Progress:
    """A bar with description, episodes done of the total, a note, elapsed and remaining time.

    Each task of it has the field ``note``: ``add_task("collecting", total=300, note="")``.
    """
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console or Console(),
    )
