"""The commands on runs and plans: convert, resume, survey, requalify, compare, report, plan."""

from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from layerwright.flows.command_line import options

running_app = typer.Typer()
plan_app = typer.Typer(no_args_is_help=True, help="Check and compare plans that you edit by hand.")
running_app.add_typer(plan_app, name="plan", rich_help_panel=options.BUILD)
COMPARED = "NAME@alias, NAME/version, a checkpoint's folder, or a run id."


@running_app.command(rich_help_panel=options.BUILD)
def convert(
    recipe: options.RecipeArgument,
    plan: Annotated[Path | None, Option(help="Use this plan instead of choosing one.")] = None,
    home: options.HomeOption = options.HOME,
    assignments: options.Assignments = options.UNCHANGED,
    dry_run: Annotated[
        bool, Option("--dry-run", help="Show steps, cache hits and estimates; run nothing.")
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Run the whole DAG of a recipe: fetch, profile, choose, convert, finetune, evaluate, gate,
    register.
    """
    from layerwright.flows.session.prepare import prepare

    ready = prepare(recipe, assignments, home, flow="convert", plan=plan, serve=not dry_run)
    if dry_run:
        from layerwright.flows.command_line.dry_run import outlook, show_outlook

        options.show_result(outlook(ready), as_json, show_outlook)
    else:
        options.run_flow(ready, as_json)


@running_app.command(rich_help_panel=options.BUILD)
def resume(
    run: options.RunArgument,
    home: options.HomeOption = options.HOME,
    as_json: options.AsJson = False,
) -> None:
    """Continue a convert run where it stopped."""
    from layerwright.flows.session.prepare import prepare_again

    options.run_flow(prepare_again(home, run), as_json)


@running_app.command(rich_help_panel=options.BUILD)
def survey(
    recipe: options.RecipeArgument,
    home: options.HomeOption = options.HOME,
    assignments: options.Assignments = options.UNCHANGED,
    as_json: options.AsJson = False,
) -> None:
    """Compare the plans of several selectors on the same tokens, without training."""
    from layerwright.flows.session.prepare import prepare

    options.run_flow(prepare(recipe, assignments, home, flow="survey"), as_json)


@running_app.command(rich_help_panel=options.BUILD)
def methods(as_json: options.AsJson = False) -> None:
    """List strategies, profilers, selectors, objectives, metrics and model families."""
    from layerwright.flows.command_line.catalogue import catalogue, show_methods

    options.show_result(catalogue(), as_json, show_methods)


@plan_app.command("validate")
def plan_validate(plan: Annotated[Path, Argument(help="A plan, a YAML file.")]) -> None:
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


@running_app.command(rich_help_panel=options.JUDGE)
def report(
    run: options.RunArgument,
    home: options.HomeOption = options.HOME,
    open_page: Annotated[bool, Option("--open", help="Open the report in the browser.")] = False,
    as_json: options.AsJson = False,
) -> None:
    """Show the result of a run and the address of its report."""
    from layerwright.flows.command_line.results import show_run
    from layerwright.flows.session.runs import RunFolder
    from layerwright.tasks.errors import InputError

    folder = RunFolder.find(home, run)
    record, result = folder.record(), folder.result()
    if result is None:
        again = f"resume {record.run_id}" if record.flow == "convert" else record.flow
        raise InputError(
            f"run {record.run_id} has no report: it is {record.state} {record.reason}".rstrip(),
            remedy=f"layerwright {again}",
        )
    options.show_result(result, as_json, show_run)
    if open_page and (page := getattr(result, "report", None)):  # a comparison has no page
        typer.launch(page)


@running_app.command(rich_help_panel=options.JUDGE)
def requalify(
    version: Annotated[str, Argument(metavar="VERSION", help="NAME@alias or NAME/version.")],
    recipe: options.RecipeArgument,
    home: options.HomeOption = options.HOME,
    assignments: options.Assignments = options.UNCHANGED,
    as_json: options.AsJson = False,
) -> None:
    """Measure a registered version against its base and the champion with a recipe's data,
    metrics and gate.
    """
    from layerwright.flows.session.prepare import prepare
    from layerwright.tasks.register.versions import Address

    address = str(Address.parse(version))
    ready = prepare(recipe, assignments, home, flow="requalify")
    options.run_flow(ready, as_json, version=address)


@running_app.command(rich_help_panel=options.JUDGE)
def compare(
    a: Annotated[str, Argument(metavar="A", help=COMPARED)],
    b: Annotated[str, Argument(metavar="B", help=COMPARED)],
    recipe: options.RecipeArgument,
    home: options.HomeOption = options.HOME,
    assignments: options.Assignments = options.UNCHANGED,
    as_json: options.AsJson = False,
) -> None:
    """Measure two checkpoints side by side with a recipe's data and metrics: paired differences,
    the items that changed, the worst regressions.
    """
    from layerwright.flows.session.prepare import prepare

    options.run_flow(prepare(recipe, assignments, home, flow="compare"), as_json, a=a, b=b)
