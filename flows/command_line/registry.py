"""The commands on registered versions: promote, rollback, history."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import Annotated

import typer

from layerwright.flows.command_line.options import (
    HOME,
    REGISTRY,
    AsJson,
    HomeOption,
    show_result,
)

registry_app = typer.Typer()

ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="A registered model's name.")]
TrackingUri = Annotated[
    str | None,
    typer.Option(
        envvar="LAYERWRIGHT_TRACKING_URI",
        help="The MLflow server (default: the embedded one under the home folder).",
    ),
]
ChampionAlias = Annotated[str, typer.Option("--champion", help="The champion's alias.")]
By = Annotated[str | None, typer.Option("--by", help="Approver (default: your login).")]


@registry_app.command(rich_help_panel=REGISTRY)
def promote(
    model: ModelArgument,
    version: Annotated[str | None, typer.Option(help="Promote this version.")] = None,
    alias: Annotated[str, typer.Option(help="Promote the version with this alias.")] = "challenger",
    approve_by: Annotated[
        str | None, typer.Option(metavar="NAME", help="The person who approves.")
    ] = None,
    reason: Annotated[str | None, typer.Option(metavar="TEXT", help="The reason.")] = None,
    recipe: Annotated[
        Path | None, typer.Option(help="Approve by the recipe's `registry.approval`.")
    ] = None,
    ask: Annotated[
        bool, typer.Option("--ask", help="Wait until someone answers in Prefect.")
    ] = False,
    champion: ChampionAlias = "champion",
    home: HomeOption = HOME,
    tracking_uri: TrackingUri = None,
    as_json: AsJson = False,
) -> None:
    """Make a version the champion if its evidence is valid and it is approved."""
    from layerwright.flows.command_line import champion_moves
    from layerwright.flows.command_line.presentation.registry import show_move

    where = champion_moves.registry_at(home, tracking_uri, champion)
    approval = champion_moves.approval_from(approve_by, reason, recipe, ask)
    move = champion_moves.run_promotion(model, where, version, alias, approval)
    show_result(move, as_json, show_move)


@registry_app.command(rich_help_panel=REGISTRY)
def rollback(
    model: ModelArgument,
    to: Annotated[
        str | None,
        typer.Option(metavar="VERSION", help="An earlier champion (default: the previous one)."),
    ] = None,
    by: By = None,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="The reason.")] = "rollback by hand",
    champion: ChampionAlias = "champion",
    home: HomeOption = HOME,
    tracking_uri: TrackingUri = None,
    as_json: AsJson = False,
) -> None:
    """Move the champion back to the version before it."""
    from layerwright.flows.command_line import champion_moves
    from layerwright.flows.command_line.presentation.registry import show_move
    from layerwright.tasks.contracts.promotion import Approval

    where = champion_moves.registry_at(home, tracking_uri, champion)
    approval = Approval(by=by or getpass.getuser(), reason=reason)
    show_result(champion_moves.run_rollback(model, where, to, approval), as_json, show_move)


@registry_app.command(rich_help_panel=REGISTRY)
def history(
    model: ModelArgument,
    champion: ChampionAlias = "champion",
    home: HomeOption = HOME,
    tracking_uri: TrackingUri = None,
    as_json: AsJson = False,
) -> None:
    """Show a model's versions, whether each can be promoted, and each move of its champion."""
    from layerwright.flows.command_line.champion_moves import read_history, registry_at
    from layerwright.flows.command_line.presentation.registry import show_history

    found = read_history(model, registry_at(home, tracking_uri, champion))
    show_result(found, as_json, show_history)
