"""Options that several commands share, and the output of a result as text or JSON."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from pydantic import BaseModel
from rich.console import Console

from layerwright.tasks.home import Home

# headings of `layerwright --help`
BUILD, JUDGE, SERVE = "Build", "Judge", "Serve"
REGISTRY, HOUSEKEEPING = "Registry", "Housekeeping"
REJECTED, INTERRUPTED = 3, 130  # exit status

RecipeArgument = Annotated[Path, typer.Argument(help="The recipe, a YAML file.")]
RunArgument = Annotated[str, typer.Argument(help="Run id, its beginning, or `latest`.")]
HomeOption = Annotated[
    Home,
    typer.Option(
        "--home",
        metavar="FOLDER",
        parser=Home.at,
        envvar="LAYERWRIGHT_HOME",
        help="The folder for the files of all runs.",
    ),
]
Assignments = Annotated[
    list[str],
    typer.Option("--set", metavar="A.B=C", help="Set a field of the recipe; can be repeated."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as one line of JSON.")]
HOME: Any = ".layerwright"  # the option's parser makes it a `Home`

Result = TypeVar("Result", bound=BaseModel)


def show_result(result: Result, as_json: bool, show: Callable[[Console, Result], None]) -> None:
    """Print a contract as one line of JSON, or by ``show(console, result)``."""
    if as_json:
        sys.stdout.flush()
        print(result.model_dump_json(), flush=True)
    else:
        show(Console(), result)
