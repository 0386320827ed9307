"""The commands on registered versions: promote, rollback, history, rollout, assign."""

import getpass
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from layerwright.flows.command_line import options

registry_app = typer.Typer()

ModelArgument = Annotated[str, Argument(metavar="MODEL", help="A registered model's name.")]
TrackingUri = Annotated[
    str | None,
    Option(
        envvar="LAYERWRIGHT_TRACKING_URI",
        help="The MLflow server (default: the embedded one under the home folder).",
    ),
]
ChampionAlias = Annotated[str, Option("--champion", help="The champion's alias.")]
By = Annotated[str | None, Option("--by", help="Approver (default: your login).")]


@registry_app.command(rich_help_panel=options.REGISTRY)
def promote(
    model: ModelArgument,
    version: Annotated[str | None, Option(help="Promote this version.")] = None,
    alias: Annotated[str, Option(help="Promote the version with this alias.")] = "challenger",
    approve_by: Annotated[
        str | None, Option(metavar="NAME", help="The person who approves.")
    ] = None,
    reason: Annotated[str | None, Option(metavar="TEXT", help="The reason.")] = None,
    recipe: Annotated[
        Path | None, Option(help="Approve by the recipe's `registry.approval`.")
    ] = None,
    ask: Annotated[bool, Option("--ask", help="Wait until someone answers in Prefect.")] = False,
    champion: ChampionAlias = "champion",
    home: options.HomeOption = options.HOME,
    tracking_uri: TrackingUri = None,
    as_json: options.AsJson = False,
) -> None:
    """Make a version the champion if its evidence is valid and it is approved."""
    from layerwright.flows.command_line import champions

    where = champions.registry_at(home, tracking_uri, champion)
    approval = champions.approval_from(approve_by, reason, recipe, ask)
    moved = champions.move("promote", model, where, version=version, alias=alias, approval=approval)
    options.show_result(moved, as_json, champions.show_move)


@registry_app.command(rich_help_panel=options.REGISTRY)
def rollback(
    model: ModelArgument,
    to: Annotated[
        str | None,
        Option(metavar="VERSION", help="An earlier champion (default: the previous one)."),
    ] = None,
    by: By = None,
    reason: Annotated[str, Option(metavar="TEXT", help="The reason.")] = "rollback by hand",
    champion: ChampionAlias = "champion",
    home: options.HomeOption = options.HOME,
    tracking_uri: TrackingUri = None,
    as_json: options.AsJson = False,
) -> None:
    """Move the champion back to the version before it."""
    from layerwright.flows.command_line import champions
    from layerwright.tasks.contracts.promotion import Approval

    where = champions.registry_at(home, tracking_uri, champion)
    approval = Approval(by=by or getpass.getuser(), reason=reason)
    moved = champions.move("rollback", model, where, to=to, approval=approval)
    options.show_result(moved, as_json, champions.show_move)


@registry_app.command(rich_help_panel=options.REGISTRY)
def history(
    model: ModelArgument,
    champion: ChampionAlias = "champion",
    home: options.HomeOption = options.HOME,
    tracking_uri: TrackingUri = None,
    as_json: options.AsJson = False,
) -> None:
    """Show a model's versions, whether each can be promoted, and each move of its champion."""
    from layerwright.flows.command_line import champions

    found = champions.read_history(model, champions.registry_at(home, tracking_uri, champion))
    options.show_result(found, as_json, champions.show_history)


@registry_app.command(rich_help_panel=options.SERVE)
def rollout(
    model: ModelArgument,
    recipe: options.RecipeArgument,
    log: Annotated[Path, Option(help="The request log: JSON Lines, oldest first.")],
    home: options.HomeOption = options.HOME,
    assignments: options.Assignments = options.UNCHANGED,
    restart: Annotated[bool, Option("--restart", help="Start again at the first stage.")] = False,
    as_json: options.AsJson = False,
) -> None:
    """Give the challenger a growing share of a request log, then promote it or roll it back by the
    recipe's policy. Run the same command again to resume.
    """
    from layerwright.flows.command_line import champions

    found = champions.run_rollout(model, recipe, assignments, log, home, restart)
    options.show_result(found, as_json, champions.show_rollout)
    if found.state.status != "promoted":
        raise typer.Exit(options.REJECTED)


@registry_app.command(rich_help_panel=options.SERVE)
def assign(
    model: ModelArgument,
    request_id: Annotated[str, Argument(metavar="REQUEST_ID", help="Id of a request or user.")],
    champion: ChampionAlias = "champion",
    home: options.HomeOption = options.HOME,
    tracking_uri: TrackingUri = None,
    as_json: options.AsJson = False,
) -> None:
    """Show which version serves a request, at the share that its roll-out has reached."""
    from layerwright.flows.command_line import champions

    where = champions.registry_at(home, tracking_uri, champion)
    found = champions.read_assignment(model, request_id, where)
    options.show_result(found, as_json, champions.show_assignment)
