"""Prints the findings of checks, the worst first."""

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape

from alam_core.data.checks import Finding, Level

STYLES: dict[Level, str] = {"error": "bold red", "warning": "yellow", "note": "dim"}


def print_findings(findings: Sequence[Finding], console: Console) -> None:
    """One line for each finding."""
    for level, style in STYLES.items():
        for finding in findings:
            if finding.level == level:
                console.print(
                    f"[{style}]{level}[/] {escape(finding.where)}: {escape(finding.message)}",
                    highlight=False,
                    soft_wrap=True,
                )


def print_data_findings(findings: Sequence[Finding], data: str) -> None:
    """What a trainer prints before it decodes videos: the findings, and how to see more."""
    if findings:
        console = Console(stderr=True)
        print_findings(findings, console)
        console.print(f"'alam check {escape(data)}' tells more", highlight=False, soft_wrap=True)
