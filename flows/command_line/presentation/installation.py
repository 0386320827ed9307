"""Print the components, the doctor's findings, or the trees that `gc` removed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console

from layerwright.flows.command_line.presentation.tables import new_table

if TYPE_CHECKING:  # a command imports what it runs, and no more
    from layerwright.flows.command_line.catalogue import Catalogue
    from layerwright.flows.command_line.cleaning import Cleaned
    from layerwright.flows.command_line.doctor import Findings

MARKS = {"ok": "[green]ok[/green]", "note": "note", "broken": "[red]broken[/red]"}


def show_methods(console: Console, catalogue: Catalogue) -> None:
    """Every component with its purpose and options."""
    for kind, components in catalogue.options.items():
        table = new_table(kind.capitalize(), "name", "purpose", "options")
        for name, about in components.items():
            options = ", ".join(f"{k}={v}" for k, v in about.options.items())
            table.add_row(name, about.purpose, options)
        console.print(table)
    console.print(f"Families: {', '.join(catalogue.families)}")


def show_findings(console: Console, findings: Findings) -> None:
    """The result of each check."""
    table = new_table("Doctor", "check", "state", "finding")
    for finding in findings.checks:
        table.add_row(finding.check, MARKS[finding.state], finding.finding)
    console.print(table)


def show_cleaned(console: Console, cleaned: Cleaned) -> None:
    """The trees that were kept and removed, and the bytes."""
    for sha256, why in cleaned.kept.items():
        console.print(f"kept        {sha256[:12]}  {why}", soft_wrap=True)
    for sha256, size in cleaned.removed.items():
        console.print(f"removed     {sha256[:12]}  {size / 1e6:,.1f} MB")
    removed = "would be removed" if cleaned.dry_run else "removed"
    console.print(
        f"{len(cleaned.removed)} trees, {cleaned.results} results and {cleaned.unfinished} "
        f"unfinished writes {removed}, {cleaned.bytes / 1e6:,.1f} MB"
    )
