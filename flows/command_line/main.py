"""The ``layerwright`` command: it joins the groups of commands, and reports errors.

Exit status: 0 accepted, 3 rejected by the gate, 2 bad input, 1 fault, 130 interrupted. With
``--json`` the last line on stdout is one JSON object; progress and messages go to stderr.
"""

import logging
import os
import sys
from importlib.metadata import version
from typing import Annotated

import typer
from rich.console import Console
from rich.logging import RichHandler
from typer import Option

from layerwright.flows.command_line.housekeeping import housekeeping_app
from layerwright.flows.command_line.registry import registry_app
from layerwright.flows.command_line.running import running_app
from layerwright.flows.command_line.serving import serving_app
from layerwright.tasks.errors import Interrupted, LayerwrightError

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",  # it reflows the lines of docstrings
    pretty_exceptions_enable=False,
    help="Turn a pretrained language model into a cheaper hybrid, layer by layer, "
    "and promote it only if it passes.",
)
for group in (running_app, serving_app, registry_app, housekeeping_app):
    app.add_typer(group)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"layerwright {version('layerwright')}")
        raise typer.Exit


@app.callback()
def options(
    show_version: Annotated[
        bool,
        Option(
            "--version", is_eager=True, callback=_show_version, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Options of the command itself; `--version` acts in its callback."""


def main() -> None:
    """Entry point of the ``layerwright`` command."""
    _log_to_stderr()
    try:
        app()
    except LayerwrightError as error:
        kind = "interrupted" if isinstance(error, Interrupted) else "error"
        print(f"{kind}: {error}", file=sys.stderr)
        raise SystemExit(error.exit_status) from None
    except SystemExit as end:  # Typer's own for Ctrl-C, which prints nothing
        if end.code == Interrupted.exit_status:
            print("interrupted: no run had started", file=sys.stderr)
        raise
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _log_to_stderr() -> None:
    console = Console(stderr=True)
    handler: logging.Handler
    if console.is_terminal:
        handler = RichHandler(console=console, show_path=False, show_level=False, markup=False)
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    logger = logging.getLogger("layerwright")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False  # Prefect's root handler would print everything twice


if __name__ == "__main__":
    main()
