"""The commands that measure models and show reports: report, requalify, compare."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from layerwright.flows.command_line.options import (
    HOME,
    JUDGE,
    REJECTED,
    AsJson,
    Assignments,
    HomeOption,
    RecipeArgument,
    RunArgument,
    show_result,
)

judging_app = typer.Typer()
COMPARED = "NAME@alias, NAME/version, a checkpoint's folder, or a run id."


@judging_app.command(rich_help_panel=JUDGE)
def report(
    run: RunArgument,
    home: HomeOption = HOME,
    open_page: Annotated[
        bool, typer.Option("--open", help="Open the report in the browser.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show the result of a run and the address of its report."""
    from layerwright.flows.command_line.presentation.runs import (
        show_comparison,
        show_requalification,
        show_summary,
    )
    from layerwright.flows.command_line.presentation.survey import show_survey
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
    screens: dict[str, Any] = {
        "convert": show_summary,
        "survey": show_survey,
        "requalify": show_requalification,
        "compare": show_comparison,
    }
    show_result(result, as_json, screens[record.flow])
    if open_page and (page := getattr(result, "report", None)):  # a comparison has no page
        typer.launch(page)


@judging_app.command(rich_help_panel=JUDGE)
def requalify(
    version: Annotated[str, typer.Argument(metavar="VERSION", help="NAME@alias or NAME/version.")],
    recipe: RecipeArgument,
    home: HomeOption = HOME,
    assignments: Assignments = [],  # noqa: B006 - typer reads the default, nobody changes it
    as_json: AsJson = False,
) -> None:
    """Measure a registered version against its base and the champion with a recipe's data,
    metrics and gate."""
    from layerwright.flows.command_line.launching import start
    from layerwright.flows.command_line.presentation.runs import show_requalification
    from layerwright.flows.session.prepare import prepare
    from layerwright.tasks.register.versions import Address

    address = Address.parse(version)
    result = start(prepare(recipe, assignments, home, flow="requalify"), version=str(address))
    show_result(result, as_json, show_requalification)
    if result.decision == "rejected":
        raise typer.Exit(REJECTED)


@judging_app.command(rich_help_panel=JUDGE)
def compare(
    a: Annotated[str, typer.Argument(metavar="A", help=COMPARED)],
    b: Annotated[str, typer.Argument(metavar="B", help=COMPARED)],
    recipe: RecipeArgument,
    home: HomeOption = HOME,
    assignments: Assignments = [],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """Measure two checkpoints side by side with a recipe's data and metrics: paired differences,
    the items that changed, the worst regressions."""
    from layerwright.flows.command_line.launching import start
    from layerwright.flows.command_line.presentation.runs import show_comparison
    from layerwright.flows.session.prepare import prepare

    result = start(prepare(recipe, assignments, home, flow="compare"), a=a, b=b)
    show_result(result, as_json, show_comparison)
