"""The commands on home, store and installation: runs, spending, gc, doctor."""

from typing import Annotated

import typer
from typer import Option

from layerwright.flows.command_line import options

housekeeping_app = typer.Typer()


@housekeeping_app.command(rich_help_panel=options.HOUSEKEEPING)
def runs(home: options.HomeOption = options.HOME, as_json: options.AsJson = False) -> None:
    """List the runs under a home folder."""
    from layerwright.flows.command_line.spending import show_runs
    from layerwright.flows.session.runs import RunFolder, RunList

    options.show_result(RunList(runs=tuple(RunFolder.all(home))), as_json, show_runs)


@housekeeping_app.command(rich_help_panel=options.HOUSEKEEPING)
def spending(
    month: Annotated[str | None, Option(help="Show only this month: YYYY-MM.")] = None,
    home: options.HomeOption = options.HOME,
    as_json: options.AsJson = False,
) -> None:
    """Show the device hours and money that runs under a home folder spent, by month."""
    from layerwright.flows.command_line import spending as spent

    options.show_result(spent.spending(home, month), as_json, spent.show_spending)


@housekeeping_app.command(rich_help_panel=options.HOUSEKEEPING)
def gc(
    home: options.HomeOption = options.HOME,
    store: Annotated[str | None, Option(help="Clean this store instead of the home's.")] = None,
    tracking_uri: Annotated[
        str | None, Option(help="Keep the versions of this MLflow instead of the home's.")
    ] = None,
    days: Annotated[float, Option(min=0, help="Keep everything newer than this.")] = 30,
    abandon: Annotated[
        list[str] | None,
        Option(metavar="RUN", help="Mark this killed run as failed; can be repeated."),
    ] = None,
    dry_run: Annotated[
        bool, Option("--dry-run", help="Show the files to remove; remove nothing.")
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Remove old results and trees that no registered version needs."""
    from layerwright.flows.command_line.cleaning import clean, show_cleaned

    removed = clean(home, store, tracking_uri, days=days, dry=dry_run, abandoned=abandon or ())
    options.show_result(removed, as_json, show_cleaned)


@housekeeping_app.command(rich_help_panel=options.HOUSEKEEPING)
def doctor(
    home: options.HomeOption = options.HOME,
    store: Annotated[str | None, Option(help="Check this store as well.")] = None,
    as_json: options.AsJson = False,
) -> None:
    """Check versions, devices, stores and servers; exit status 1 if something is broken."""
    from layerwright.flows.command_line.doctor import examine, show_findings
    from layerwright.flows.session import embedded

    embedded.configure(home)
    findings = examine(home, store)
    options.show_result(findings, as_json, show_findings)
    if findings.broken:
        raise typer.Exit(1)
