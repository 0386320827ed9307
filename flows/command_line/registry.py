"""The commands on registered versions: promote, roll back, and what became of them."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import Annotated

import typer

from layerwright.flows.command_line.options import (
    HOME,
    REJECTED,
    AsJson,
    Assignments,
    Home,
    RecipeArgument,
    show_result,
)

registry_app = typer.Typer()

ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="A registered model's name.")]
TrackingUri = Annotated[
    str | None,
    typer.Option(
        envvar="LAYERWRIGHT_TRACKING_URI",
        help="The MLflow server; the embedded one under the home folder if not given.",
    ),
]
ChampionAlias = Annotated[str, typer.Option("--champion", help="The champion's alias.")]
COMPARED = "NAME@alias, NAME/version, a checkpoint's folder, or a run id."
By = Annotated[str | None, typer.Option("--by", help="Who answers for it; your login if left out.")]


@registry_app.command()
def promote(
    model: ModelArgument,
    version: Annotated[str | None, typer.Option(help="This version.")] = None,
    alias: Annotated[str, typer.Option(help="The version that this points at.")] = "challenger",
    approve_by: Annotated[
        str | None, typer.Option(metavar="NAME", help="The person who approves it.")
    ] = None,
    reason: Annotated[str | None, typer.Option(metavar="TEXT", help="Why.")] = None,
    recipe: Annotated[
        Path | None, typer.Option(help="Approve by the policy in this recipe: registry.approval.")
    ] = None,
    ask: Annotated[
        bool, typer.Option("--ask", help="Wait until somebody answers in Prefect.")
    ] = False,
    champion: ChampionAlias = "champion",
    home: Home = HOME,
    tracking_uri: TrackingUri = None,
    as_json: AsJson = False,
) -> None:
    """Make a version the champion, if its evidence holds and somebody answers for it."""
    from layerwright.flows.command_line import champion_moves, screen

    where = champion_moves.registry_at(home, tracking_uri, champion)
    approval = champion_moves.approval_from(approve_by, reason, recipe, ask)
    move = champion_moves.run_promotion(model, where, version, alias, approval)
    show_result(move, as_json, screen.moved)


@registry_app.command()
def rollback(
    model: ModelArgument,
    to: Annotated[
        str | None,
        typer.Option(metavar="VERSION", help="An earlier champion; the one before if left out."),
    ] = None,
    by: By = None,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why.")] = "rollback by hand",
    champion: ChampionAlias = "champion",
    home: Home = HOME,
    tracking_uri: TrackingUri = None,
    as_json: AsJson = False,
) -> None:
    """Let the champion go back to the version before it."""
    from layerwright.flows.command_line import champion_moves, screen
    from layerwright.tasks.contracts.promotion import Approval

    where = champion_moves.registry_at(home, tracking_uri, champion)
    approval = Approval(by=by or getpass.getuser(), reason=reason)
    show_result(champion_moves.run_rollback(model, where, to, approval), as_json, screen.moved)


@registry_app.command()
def history(
    model: ModelArgument,
    champion: ChampionAlias = "champion",
    home: Home = HOME,
    tracking_uri: TrackingUri = None,
    as_json: AsJson = False,
) -> None:
    """Show a model's versions, what they may become, and every move of its champion."""
    from layerwright.flows.command_line import screen
    from layerwright.flows.command_line.champion_moves import read_history, registry_at

    found = read_history(model, registry_at(home, tracking_uri, champion))
    show_result(found, as_json, screen.history)


@registry_app.command()
def requalify(
    version: Annotated[str, typer.Argument(metavar="VERSION", help="NAME@alias or NAME/version.")],
    recipe: RecipeArgument,
    home: Home = HOME,
    assignments: Assignments = [],  # noqa: B006 - typer reads the default, nobody changes it
    as_json: AsJson = False,
) -> None:
    """Measure a registered version against its base and the champion with a recipe's data,
    metrics and gate."""
    from layerwright.flows.command_line import screen
    from layerwright.flows.session import launch
    from layerwright.tasks.register.versions import Address

    address = Address.parse(version)
    ready = launch.prepare(recipe, assignments, home, flow="requalify")
    found = launch.run_requalification(ready, str(address))
    show_result(found, as_json, screen.requalified)
    if found["decision"] == "rejected":
        raise typer.Exit(REJECTED)


@registry_app.command()
def compare(
    a: Annotated[str, typer.Argument(metavar="A", help=COMPARED)],
    b: Annotated[str, typer.Argument(metavar="B", help=COMPARED)],
    recipe: RecipeArgument,
    home: Home = HOME,
    assignments: Assignments = [],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """Measure two checkpoints side by side with a recipe's data and metrics: paired differences,
    the items that changed, the worst regressions."""
    from layerwright.flows.command_line import screen
    from layerwright.flows.session import launch

    ready = launch.prepare(recipe, assignments, home, flow="compare")
    show_result(launch.run_comparison(ready, a, b), as_json, screen.compared)
