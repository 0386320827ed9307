"""List the runs under a home, and sum their device hours and their money by month."""

from collections import Counter, defaultdict

from rich.console import Console
from rich.markup import escape

from layerwright.flows.command_line.options import new_table
from layerwright.flows.session.runs import RunFolder, RunList, RunRecord
from layerwright.tasks.contracts.base import Contract
from layerwright.tasks.contracts.run import RunSummary
from layerwright.tasks.errors import InputError
from layerwright.tasks.home import Home
from layerwright.tasks.steps import placed_steps


class Month(Contract):
    """One month; a run belongs to the one in which it started (UTC).

    A cached result takes almost no time, so no hour is counted twice.
    """

    month: str
    runs: dict[str, int]
    device_hours: dict[str, float]  # by step
    money: dict[str, float]  # by currency, for runs whose recipe has a price
    unpriced_hours: float  # of the other runs
    unknown: tuple[str, ...]  # runs without times, which have not ended or have failed
    versions: tuple[str, ...]


class Spending(Contract):
    """Every month with runs, oldest first."""

    months: tuple[Month, ...]


def spending(home: Home, month: str | None = None) -> Spending:
    """Every month with runs, oldest first; with ``month`` (``YYYY-MM``), only that month.
    InputError if no run started in that month.
    """
    by_month: dict[str, list[RunRecord]] = defaultdict(list)
    for record in RunFolder.all(home):
        by_month[record.started_at[:7]].append(record)
    if month is not None and month not in by_month:
        raise InputError(
            f"no run under {home} started in {month!r}",
            expected=f"one of {', '.join(by_month)}" if by_month else "a home with runs",
        )
    wanted = by_month if month is None else {month: by_month[month]}
    return Spending(months=tuple(_month(home, name, records) for name, records in wanted.items()))


def _month(home: Home, name: str, records: list[RunRecord]) -> Month:
    hours: Counter[str] = Counter()
    money: defaultdict[str, float] = defaultdict(float)
    unpriced, unknown, versions = 0.0, [], []
    for record in records:
        result = RunFolder(home, record.run_id).result()
        if result is None:
            unknown.append(record.run_id)
            continue
        compute, price = record.recipe.compute, record.recipe.price
        spent = {
            step: seconds * compute.of(step).processes
            for step, seconds in result.seconds.items()
            if step in placed_steps()
        }
        hours.update({step: seconds / 3600 for step, seconds in spent.items()})
        if price:
            money[price.currency] += price.of(sum(spent.values()))
        else:
            unpriced += sum(spent.values()) / 3600
        registered = result.registered if isinstance(result, RunSummary) else None
        if registered and not registered.found:
            versions.append(f"{registered.name}/{registered.version}")
    return Month(
        month=name,
        runs=dict(Counter(record.state for record in records)),
        device_hours=dict(hours),
        money=dict(money),
        unpriced_hours=unpriced,
        unknown=tuple(unknown),
        versions=tuple(versions),
    )


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
        steps, total = month.device_hours, sum(month.device_hours.values())
        longest = sorted(steps, key=lambda step: -steps[step])[:3]
        costly = ", ".join(f"{step} {steps[step]:.2f}" for step in longest)
        money = [f"{amount:.2f} {currency}" for currency, amount in month.money.items()]
        if month.unpriced_hours:
            money.append(f"{month.unpriced_hours:.2f} h without a price")
        runs = ", ".join(f"{count} {state}" for state, count in month.runs.items())
        hours = f"{total:.2f} ({costly})" if steps else "-"
        cells = (", ".join(texts) or "-" for texts in (money, month.versions))
        table.add_row(month.month, runs, hours, *cells)
    console.print(table)
    for month in spending.months:
        if month.unknown:
            console.print(f"{month.month}: no times of {', '.join(month.unknown)}")
