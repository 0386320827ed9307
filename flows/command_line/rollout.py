"""The commands of a staged roll-out: rollout, assign."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from layerwright.flows.command_line.options import (
    HOME,
    REJECTED,
    SERVE,
    AsJson,
    Assignments,
    HomeOption,
    RecipeArgument,
    show_result,
)
from layerwright.flows.command_line.registry import ChampionAlias, ModelArgument, TrackingUri

rollout_app = typer.Typer()


@rollout_app.command(rich_help_panel=SERVE)
def rollout(
    model: ModelArgument,
    recipe: RecipeArgument,
    log: Annotated[Path, typer.Option(help="The request log: JSON Lines, oldest first.")],
    home: HomeOption = HOME,
    assignments: Assignments = [],  # noqa: B006 - typer reads the default, nobody changes it
    restart: Annotated[
        bool, typer.Option("--restart", help="Start again at the first stage.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Give the challenger a growing share of a request log, then promote it or roll it back by the
    recipe's policy. Run the same command again to resume."""
    from layerwright.flows.command_line.champion_moves import run_rollout
    from layerwright.flows.command_line.presentation.registry import show_rollout

    found = run_rollout(model, recipe, assignments, log, home, restart)
    show_result(found, as_json, show_rollout)
    if found.state.status != "promoted":
        raise typer.Exit(REJECTED)


@rollout_app.command(rich_help_panel=SERVE)
def assign(
    model: ModelArgument,
    request_id: Annotated[
        str, typer.Argument(metavar="REQUEST_ID", help="Id of a request or user.")
    ],
    champion: ChampionAlias = "champion",
    home: HomeOption = HOME,
    tracking_uri: TrackingUri = None,
    as_json: AsJson = False,
) -> None:
    """Show which version serves a request, at the share that its roll-out has reached."""
    from layerwright.flows.command_line.champion_moves import read_assignment
    from layerwright.flows.command_line.presentation.registry import show_assignment

    found = read_assignment(model, request_id, home, tracking_uri, champion)
    show_result(found, as_json, show_assignment)
