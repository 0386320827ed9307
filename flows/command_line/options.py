"""What commands share: their options, the start of a flow, the output of results and tables."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from pydantic import BaseModel
from rich.console import Console
from rich.table import Table
from typer import Argument, Option

from layerwright.tasks.errors import Interrupted
from layerwright.tasks.home import Home

if TYPE_CHECKING:
    from layerwright.flows.session.prepare import Prepared

# headings of `layerwright --help`
BUILD, JUDGE, SERVE = "Build", "Judge", "Serve"
REGISTRY, HOUSEKEEPING = "Registry", "Housekeeping"
REJECTED = 3  # exit status

RecipeArgument = Annotated[Path, Argument(help="The recipe, a YAML file.")]
RunArgument = Annotated[str, Argument(help="Run id, its beginning, or `latest`.")]
HomeOption = Annotated[
    Home,
    Option(
        "--home",
        metavar="FOLDER",
        parser=Home.at,
        envvar="LAYERWRIGHT_HOME",
        help="The folder for the files of all runs.",
    ),
]
Assignments = Annotated[
    list[str], Option("--set", metavar="A.B=C", help="Set a field of the recipe; can be repeated.")
]
AsJson = Annotated[bool, Option("--json", help="Print the result as one line of JSON.")]
HOME: Any = ".layerwright"  # the option's parser makes it a `Home`
UNCHANGED: Any = []  # no assignments: typer reads the default, nobody changes it

Result = TypeVar("Result", bound=BaseModel)


def show_result(result: Result, as_json: bool, show: Callable[[Console, Result], None]) -> None:
    """Print a contract as one line of JSON, or by ``show(console, result)``."""
    if as_json:
        sys.stdout.flush()
        print(result.model_dump_json(), flush=True)
    else:
        show(Console(), result)


def run_flow(prepared: "Prepared", as_json: bool, **more: Any) -> None:
    """Run the flow that a run was prepared for, and show its result.

    ``more``: parameters of this flow in addition to those that every flow takes. Interrupted if the
    user pressed Ctrl-C. Exit with status 3, if the gate rejected.
    """
    # late: Prefect reads its settings when it is imported, and `prepare` sets them
    flow = getattr(importlib.import_module(f"layerwright.flows.{prepared.flow}"), prepared.flow)
    from layerwright.flows.command_line.results import show_run

    with prepared.server:
        run = prepared.record().run_id
        try:
            result = flow(recipe=str(prepared.path), home=str(prepared.home), run=run, **more)
        except KeyboardInterrupt:
            how = f"`layerwright resume {run} --home {prepared.home}` continues it"
            if prepared.flow != "convert":
                how = f"`layerwright {prepared.flow}` with the same arguments uses them"
            raise Interrupted(
                f"the results of finished steps of run {run} are kept; {how}"
            ) from None
    show_result(result, as_json, show_run)
    if getattr(result, "decision", None) == "rejected":
        raise typer.Exit(REJECTED)


def new_table(title: str, *columns: str) -> Table:
    """An empty table."""
    table = Table(title=title, title_justify="left", header_style="bold")
    for column in columns:
        table.add_column(column, justify="left", overflow="fold")
    return table


def number(value: float | None) -> str:
    """Four significant digits; ``-`` for a figure that is missing."""
    if value is None:
        return "-"
    if abs(value) >= 10_000:
        return f"{value:,.0f}"
    return f"{value:.4g}"
