"""What the commands show a person: tables on stdout."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", header_style="bold")
    for column in columns:
        table.add_column(column, justify="left", overflow="fold")
    return table


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    if abs(value) >= 10_000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def summary(console: Console, value: dict[str, Any]) -> None:
    """A run's result: figures of every arm, what was decided, where the report lies."""
    arms = list(value["metrics"])
    table = _table(f"Run {value['run_id']}", "metric", *arms)
    names = dict.fromkeys(name for arm in arms for name in value["metrics"][arm])
    for name in names:
        table.add_row(name, *(_number(value["metrics"][arm].get(name)) for arm in arms))
    console.print(table)
    counts: dict[str, int] = {}
    for strategy in value["plan"].values():
        counts[strategy] = counts.get(strategy, 0) + 1
    plan = ", ".join(f"{count} {strategy}" for strategy, count in counts.items())
    console.print(f"plan        {plan} of {len(value['plan'])} layers")
    spent = ", ".join(f"{step} {seconds:.0f} s" for step, seconds in value["seconds"].items())
    console.print(f"time        {spent}")
    if value["cache_hits"]:
        console.print(f"cached      {', '.join(value['cache_hits'])}")
    console.print(f"decision    [bold]{value['decision']}[/bold]")
    for check in value["failed_checks"]:
        console.print(f"  failed    {check}")
    if registered := value["registered"]:
        console.print(
            f"registered  {registered['name']} version {registered['version']} "
            f"as {registered['alias']}{' (found, verified)' if registered['found'] else ''}"
        )
    console.print(f"checkpoint  {value['checkpoint']['uri']}", soft_wrap=True)
    console.print(f"report      {value['report']}", soft_wrap=True)


def outlook(console: Console, value: dict[str, Any]) -> None:
    """A dry run."""
    table = _table("What this run would do", "step", "state", "about")
    for step in value["steps"]:
        seconds = step["seconds"]
        table.add_row(step["step"], step["state"], "-" if seconds is None else f"{seconds:.0f} s")
    console.print(table)
    for name in ("memory", "disk"):
        size = value[f"{name}_bytes"]
        console.print(f"{name:7} {'-' if size is None else f'about {size / 1e9:.1f} GB'}")
    console.print(f"basis   {value['basis']}")


def survey(console: Console, value: dict[str, Any]) -> None:
    """The figures of every plan of a survey."""
    rows = {name: row for name, row in value["selectors"].items()}
    rows |= {f"frontier {row['kv_bytes_ratio']:g}": row for row in value["frontier"]}
    metrics = list(dict.fromkeys(m for row in rows.values() for m in row["metrics"]))
    table = _table(f"Survey {value['run_id']}", "plan", "converted", *metrics)
    for name, row in rows.items():
        converted = sum(strategy != "keep" for strategy in row["plan"].values())
        figures = (_number(row["metrics"].get(metric)) for metric in metrics)
        table.add_row(name, f"{converted} of {len(row['plan'])}", *figures)
    console.print(table)


def runs(console: Console, value: dict[str, Any]) -> None:
    """All runs of a home folder."""
    table = _table("Runs", "run", "state", "started", "finished", "reason")
    for record in value["runs"]:
        table.add_row(*(str(record[k] or "") for k in (
            "run_id", "state", "started_at", "finished_at", "reason",
        )))  # fmt: skip
    console.print(table)


def methods(console: Console, value: dict[str, Any]) -> None:
    """Every component with its purpose and options."""
    for kind, components in value["options"].items():
        table = _table(kind.capitalize(), "name", "purpose", "options")
        for name, about in components.items():
            options = ", ".join(f"{k}={v}" for k, v in about["options"].items())
            table.add_row(name, about["purpose"], options)
        console.print(table)
    console.print(f"Families: {', '.join(value['families'])}")


def findings(console: Console, value: dict[str, Any]) -> None:
    """What doctor found."""
    marks = {"ok": "[green]ok[/green]", "note": "note", "broken": "[red]broken[/red]"}
    table = _table("Doctor", "check", "state", "finding")
    for finding in value["checks"]:
        table.add_row(finding["check"], marks[finding["state"]], finding["finding"])
    console.print(table)
