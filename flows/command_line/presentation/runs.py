"""Print the results of runs, a dry run, the list of runs, or their spending."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from layerwright.flows.command_line.presentation.tables import new_table, number, show_arms
from layerwright.tasks.contracts.comparison import SideBySideRun
from layerwright.tasks.contracts.requalification import Requalification
from layerwright.tasks.contracts.run import RunSummary
from layerwright.tasks.report.returns import return_sentence

if TYPE_CHECKING:  # a command imports what it runs, and no more
    from layerwright.flows.command_line.dry_run import Outlook
    from layerwright.flows.command_line.spending import Spending
    from layerwright.flows.session.runs import RunList


def show_summary(console: Console, run: RunSummary) -> None:
    """A convert run: figures of every arm, the decision, and where the report is."""
    show_arms(console, f"Run {run.run_id}", run.metrics)
    plan = ", ".join(f"{count} {name}" for name, count in Counter(run.plan.values()).items())
    console.print(f"plan        {plan} of {len(run.plan)} layers")
    spent = ", ".join(f"{step} {seconds:.0f} s" for step, seconds in run.seconds.items())
    console.print(f"time        {spent}")
    if run.cache_hits:
        console.print(f"cached      {', '.join(run.cache_hits)}")
    if run.cost:
        console.print(f"cost        {return_sentence(run.cost)}", soft_wrap=True)
    console.print(f"decision    [bold]{run.decision}[/bold]")
    for check in run.failed_checks:
        console.print(f"  failed    {check}")
    if run.registered:
        verified = " (found, verified)" if run.registered.found else ""
        console.print(
            f"registered  {run.registered.name} version {run.registered.version} "
            f"as {run.registered.alias}{verified}"
        )
    console.print(f"checkpoint  {run.checkpoint.uri}", soft_wrap=True)
    console.print(f"report      {run.report}", soft_wrap=True)


def show_requalification(console: Console, run: Requalification) -> None:
    """A version measured again: figures of every arm, the decision, and the alarms."""
    show_arms(console, f"{run.model}, version {run.version}", run.metrics)
    console.print(f"decision    [bold]{run.decision}[/bold]")
    for check in run.failed_checks:
        console.print(f"  failed    {check}", markup=False)
    for alarm in run.alarms:
        ratio = f"ratio to the {alarm.reference} {number(alarm.ratio)}, "
        told = (ratio if alarm.ratio is not None else "") + alarm.reason
        console.print(f"  alarm     {alarm.metric}: {told}", markup=False)
    console.print(f"trend       {len(run.trend)} requalifications, this one included")
    console.print(f"report      {run.report}", soft_wrap=True)


def show_comparison(console: Console, run: SideBySideRun) -> None:
    """Two checkpoints: every figure with the interval of its difference, and what changed."""
    columns = ("metric", "A", "B", "B - A", "95 % interval", "p", "items", "lost/won", "better")
    table = new_table(f"A {run.a}, B {run.b}", *columns)
    for row in run.figures:
        bounds = "-" if row.low is None else f"{number(row.low)} to {number(row.high)}"
        changes = "-" if row.lost is None else f"{row.lost}/{row.won}"
        figures = (number(value) for value in (row.a, row.b, row.difference))
        items = str(row.items or "-")
        table.add_row(row.metric, *figures, bounds, number(row.p_value), items, changes, row.better)
    console.print(table)
    if run.regressions:
        table = new_table("Where B is worst", "metric", "item", "A", "B")
        for item in run.regressions:
            asked = "\n".join(escape(part) for part in (item.item, item.prompt) if part)
            arms = ((item.a, item.text_a), (item.b, item.text_b))
            cells = (f"{number(v)}\n{escape(text)}" if text else number(v) for v, text in arms)
            table.add_row(item.metric, asked, *cells)
        console.print(table)
    console.print(f"changed     {len(run.changed)} items are right in one and wrong in the other")


def show_outlook(console: Console, outlook: Outlook) -> None:
    """A dry run."""
    table = new_table("What this run would do", "step", "state", "about")
    for step in outlook.steps:
        about = "-" if step.seconds is None else f"{step.seconds:.0f} s"
        table.add_row(step.step, step.state, about)
    console.print(table)
    for name, size in (("memory", outlook.memory_bytes), ("disk", outlook.disk_bytes)):
        console.print(f"{name:7} {'-' if size is None else f'about {size / 1e9:.1f} GB'}")
    console.print(f"basis   {outlook.basis}")


def show_runs(console: Console, runs: RunList) -> None:
    """All runs of a home folder."""
    table = new_table("Runs", "run", "state", "started", "finished", "reason")
    for run in runs.runs:
        cells = (run.run_id, run.state, run.started_at, run.finished_at or "", run.reason)
        table.add_row(*(escape(cell) for cell in cells))
    console.print(table)


def show_spending(console: Console, spending: Spending) -> None:
    """One month a row; runs without times are named below."""
    table = new_table("Spent by month", "month", "runs", "device hours", "money", "versions")
    for month in spending.months:
        steps = month.device_hours
        costly = ", ".join(
            f"{step} {hours:.2f}" for step, hours in sorted(steps.items(), key=lambda s: -s[1])[:3]
        )
        money = [f"{amount:.2f} {currency}" for currency, amount in month.money.items()]
        if month.unpriced_hours:
            money.append(f"{month.unpriced_hours:.2f} h without a price")
        table.add_row(
            month.month,
            ", ".join(f"{count} {state}" for state, count in month.runs.items()),
            f"{sum(steps.values()):.2f} ({costly})" if steps else "-",
            ", ".join(money) or "-",
            ", ".join(month.versions) or "-",
        )
    console.print(table)
    for month in spending.months:
        if month.unknown:
            console.print(f"{month.month}: no times of {', '.join(month.unknown)}")
