"""What the commands share: their common options, and how a result is shown."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

RecipeArgument = Annotated[Path, typer.Argument(help="The recipe, a YAML file.")]
Home = Annotated[
    Path,
    typer.Option(envvar="LAYERWRIGHT_HOME", help="Folder that holds everything a run keeps."),
]
Assignments = Annotated[
    list[str], typer.Option("--set", metavar="A.B=C", help="Change one field of the recipe.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Last line on stdout is one JSON object.")]
HOME = Path(".layerwright")
REJECTED = 3


def show_result(value: dict[str, Any], as_json: bool, show: Any) -> None:
    """As one line of JSON, or by ``show(console, value)``."""
    if as_json:
        sys.stdout.flush()
        print(json.dumps(value), flush=True)
    else:
        show(Console(), value)
