"""The commands that build models and plans: convert, resume, survey, methods, plan."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from layerwright.flows.command_line.options import (
    BUILD,
    HOME,
    REJECTED,
    AsJson,
    Assignments,
    HomeOption,
    RecipeArgument,
    RunArgument,
    show_result,
)

building_app = typer.Typer()
plan_app = typer.Typer(no_args_is_help=True, help="Check and compare plans that you edit by hand.")
building_app.add_typer(plan_app, name="plan", rich_help_panel=BUILD)


@building_app.command(rich_help_panel=BUILD)
def convert(
    recipe: RecipeArgument,
    plan: Annotated[
        Path | None, typer.Option(help="Use this plan instead of choosing one.")
    ] = None,
    home: HomeOption = HOME,
    assignments: Assignments = [],  # noqa: B006 - typer reads the default, nobody changes it
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show steps, cache hits and estimates; run nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run the whole DAG of a recipe: fetch, profile, choose, convert, finetune, evaluate, gate,
    register."""
    from layerwright.flows.command_line.launching import start
    from layerwright.flows.command_line.presentation import runs as screen
    from layerwright.flows.session.prepare import prepare

    ready = prepare(recipe, assignments, home, flow="convert", plan=plan, serve=not dry_run)
    if dry_run:
        from layerwright.flows.command_line.dry_run import dry_run as walk

        show_result(walk(ready), as_json, screen.show_outlook)
        return
    summary = start(ready)
    show_result(summary, as_json, screen.show_summary)
    if summary.decision == "rejected":
        raise typer.Exit(REJECTED)


@building_app.command(rich_help_panel=BUILD)
def resume(run: RunArgument, home: HomeOption = HOME, as_json: AsJson = False) -> None:
    """Continue a convert run where it stopped."""
    from layerwright.flows.command_line.launching import start
    from layerwright.flows.command_line.presentation.runs import show_summary
    from layerwright.flows.session.prepare import prepare_again

    summary = start(prepare_again(home, run))
    show_result(summary, as_json, show_summary)
    if summary.decision == "rejected":
        raise typer.Exit(REJECTED)


@building_app.command(rich_help_panel=BUILD)
def survey(
    recipe: RecipeArgument,
    home: HomeOption = HOME,
    assignments: Assignments = [],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """Compare the plans of several selectors on the same tokens, without training."""
    from layerwright.flows.command_line.launching import start
    from layerwright.flows.command_line.presentation.survey import show_survey
    from layerwright.flows.session.prepare import prepare

    ready = prepare(recipe, assignments, home, flow="survey")
    show_result(start(ready), as_json, show_survey)


@building_app.command(rich_help_panel=BUILD)
def methods(as_json: AsJson = False) -> None:
    """List strategies, profilers, selectors, objectives, metrics and model families."""
    from layerwright.flows.command_line.catalogue import catalogue
    from layerwright.flows.command_line.presentation.installation import show_methods

    show_result(catalogue(), as_json, show_methods)


@plan_app.command("validate")
def plan_validate(plan: Annotated[Path, typer.Argument(help="A plan, a YAML file.")]) -> None:
    """Check a plan: it covers every layer, and its strategies exist and take their options."""
    from layerwright.flows.session.preflight import check_plan

    checked = check_plan(plan)
    typer.echo(f"{plan}: {checked.layers} layers, {len(checked.items)} items, valid")


@plan_app.command("diff")
def plan_diff(first: Path, second: Path) -> None:
    """Show the layers that two plans treat differently."""
    from layerwright.tasks.convert.plan_file import diff_plans, read_plan

    for line in diff_plans(read_plan(first), read_plan(second)):
        typer.echo(line)
