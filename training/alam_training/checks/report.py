"""What ``alam check`` found out about one path, and how it is printed."""

from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from alam_core.data.checks import Finding
from alam_training.findings import print_findings


@dataclass
class CheckReport:
    """what: kind of data or checkpoint, in words. facts: name -> value, in words. columns: for each
    column of state and action, heading -> text. sheet: file with some frames, "" if there is
    none.
    """

    path: str
    what: str
    facts: dict[str, str] = field(default_factory=dict)
    columns: list[dict[str, str]] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    sheet: str = ""

    def count(self, level: str) -> int:
        """Number of findings of a level."""
        return sum(finding.level == level for finding in self.findings)

    def verdict(self) -> str:
        """The numbers of errors, warnings and notes, in words."""
        counts = [(self.count(level), level) for level in ("error", "warning", "note")]
        found = [f"{n} {level}{'' if n == 1 else 's'}" for n, level in counts if n]
        return ", ".join(found) or "nothing found"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    def print(self, console: Console) -> None:
        """Facts, findings and the verdict."""
        console.print(f"[bold]{escape(self.path)}[/]: {escape(self.what)}", soft_wrap=True)
        grid = Table.grid(padding=(0, 2))
        for name, value in self.facts.items():
            grid.add_row(f"  {escape(name)}", escape(value))
        if self.facts:
            console.print(grid, highlight=False)
        if self.columns:
            table = Table(*self.columns[0], box=None, padding=(0, 2), header_style="dim")
            for column in self.columns:
                table.add_row(*map(escape, column.values()))
            console.print(table, highlight=False)
        print_findings(self.findings, console)
        if self.sheet:
            console.print(f"contact sheet: {escape(self.sheet)}", soft_wrap=True, highlight=False)
        console.print(f"{self.verdict()}\n", highlight=False)
