"""The command line.

Exit status: 0 accepted, 3 rejected by the gate, 2 bad input, 1 fault. With ``--json`` the last line
on stdout is one JSON object; progress and messages go to stderr.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.logging import RichHandler

from layerwright.flows.command_line.options import (
    HOME,
    REJECTED,
    AsJson,
    Assignments,
    Home,
    RecipeArgument,
    show_result,
)
from layerwright.flows.command_line.registry import registry_app
from layerwright.flows.command_line.rollout import rollout_app
from layerwright.tasks.errors import LayerwrightError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Turn a pretrained language model into a cheaper hybrid, layer by layer, "
    "and promote it only if it passes.",
)
plan_app = typer.Typer(no_args_is_help=True, help="Check and compare plans that you edit by hand.")
app.add_typer(plan_app, name="plan")
app.add_typer(registry_app)
app.add_typer(rollout_app)

CheckpointArgument = Annotated[
    str, typer.Argument(metavar="CHECKPOINT", help="A folder, or a run id or `latest`.")
]


@app.command()
def convert(
    recipe: RecipeArgument,
    plan: Annotated[
        Path | None, typer.Option(help="Use this plan instead of choosing one.")
    ] = None,
    home: Home = HOME,
    assignments: Assignments = [],  # noqa: B006 - typer reads the default, nobody changes it
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show steps, cache hits and estimates; run nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run the whole DAG of a recipe: fetch, profile, choose, convert, finetune, evaluate, gate,
    register."""
    from layerwright.flows.command_line import screen
    from layerwright.flows.session import launch

    ready = launch.prepare(recipe, assignments, home, flow="convert", plan=plan, serve=not dry_run)
    if dry_run:
        from layerwright.flows.command_line.dry_run import dry_run as walk

        outlook = walk(ready)
        show_result(outlook, as_json, screen.outlook)
        return
    _finish(launch.run_convert(ready), as_json)


@app.command()
def resume(
    run: Annotated[str, typer.Argument(help="Run id, its beginning, or `latest`.")],
    home: Home = HOME,
    as_json: AsJson = False,
) -> None:
    """Go on with a convert run where it stopped."""
    from layerwright.flows.session import launch

    ready, folder = launch.relaunch(home, run)
    _finish(launch.run_convert(ready, folder), as_json)


@app.command()
def survey(
    recipe: RecipeArgument,
    home: Home = HOME,
    assignments: Assignments = [],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """Compare selectors on the same tokens: profile and choose only, nothing is trained."""
    from layerwright.flows.command_line import screen
    from layerwright.flows.session import launch

    ready = launch.prepare(recipe, assignments, home, flow="survey")
    show_result(launch.run_survey(ready), as_json, screen.survey)


@app.command()
def runs(home: Home = HOME, as_json: AsJson = False) -> None:
    """List the runs under a home folder."""
    from layerwright.flows.command_line import screen
    from layerwright.flows.session.runs import RunFolder

    records = [
        record.model_dump(
            mode="json", include={"run_id", "state", "started_at", "finished_at", "reason"}
        )
        for record in RunFolder.all(home)
    ]
    show_result({"runs": records}, as_json, screen.runs)


@app.command()
def spending(
    month: Annotated[str | None, typer.Option(help="Only this one: YYYY-MM.")] = None,
    home: Home = HOME,
    as_json: AsJson = False,
) -> None:
    """Say what the runs under a home folder spent, by month: device hours, and their money."""
    from layerwright.flows.command_line import screen
    from layerwright.flows.command_line.spending import spending as by_month

    found = [one.model_dump(mode="json") for one in by_month(home, month)]
    show_result({"months": found}, as_json, screen.spending)


@app.command()
def report(
    run: Annotated[str, typer.Argument(help="Run id, its beginning, or `latest`.")],
    home: Home = HOME,
    open_page: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    as_json: AsJson = False,
) -> None:
    """Say where a run's report lies, and what it concluded."""
    from layerwright.flows.command_line import screen
    from layerwright.flows.session.runs import RunFolder
    from layerwright.tasks.errors import InputError

    folder = RunFolder.find(home, run)
    results = {
        screen.survey: folder.survey,
        screen.requalified: folder.requalification,
        screen.compared: folder.comparison,
        screen.summary: folder.summary,
    }
    found, show = next(
        ((value, show) for show, read in results.items() if (value := read())), (None, None)
    )
    if found is None:
        record = folder.record()
        raise InputError(
            f"run {record.run_id} has no report: it is {record.state} {record.reason}".rstrip(),
            remedy=f"layerwright resume {record.run_id}",
        )
    show_result(found, as_json, show)
    if open_page:
        typer.launch(found["report"])


@app.command()
def export(
    checkpoint: CheckpointArgument,
    to: Annotated[
        Literal["transformers", "stock", "gguf"],
        typer.Option(
            help="With its own code; as a model of Transformers' own classes; as a GGUF file."
        ),
    ],
    out: Annotated[Path, typer.Option(help="A new folder.")],
    home: Home = HOME,
    as_json: AsJson = False,
) -> None:
    """Write a checkpoint in a form that serving engines take, and compare the logits of the two."""
    from layerwright.flows.command_line import checkpoints, screen

    show_result(checkpoints.export_checkpoint(checkpoint, home, to, out), as_json, screen.exported)


@app.command()
def inspect(
    checkpoint: CheckpointArgument,
    home: Home = HOME,
    tokens: Annotated[
        list[int] | None,
        typer.Option(help="Measure the cache at this many tokens; give it again for more."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say what a checkpoint is (layers, capabilities, memory, size) without loading its weights."""
    from layerwright.flows.command_line import checkpoints, screen
    from layerwright.tasks.export.inspection import inspect_checkpoint

    folder = checkpoints.checkpoint_folder(checkpoint, home)
    show_result(inspect_checkpoint(folder, tokens), as_json, screen.inspected)


@app.command()
def generate(
    checkpoint: CheckpointArgument,
    prompt: Annotated[str | None, typer.Option(help="What to continue.")] = None,
    prompt_file: Annotated[Path | None, typer.Option(help="Read the prompt from a file.")] = None,
    chat: Annotated[
        bool, typer.Option("--chat", help="Put the prompt into the chat template.")
    ] = False,
    max_new_tokens: Annotated[int, typer.Option(min=1)] = 128,
    memory: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Hold this much of the weights: 300MB.")
    ] = None,
    resident_layers: Annotated[
        int | None, typer.Option(min=1, help="Hold this many layers at a time.")
    ] = None,
    weights: Annotated[
        Literal["disk", "host"], typer.Option(help="Where the other layers come from.")
    ] = "disk",
    home: Home = HOME,
    as_json: AsJson = False,
) -> None:
    """Continue a prompt; layers beyond the memory that you give are read as their turn comes."""
    from layerwright.flows.command_line import checkpoints, screen
    from layerwright.tasks.device import resolve_device
    from layerwright.tasks.offload.generation import generate_text, read_prompt

    text = read_prompt(prompt, prompt_file)
    generated = generate_text(
        checkpoints.checkpoint_folder(checkpoint, home),
        text,
        chat=chat,
        max_new_tokens=max_new_tokens,
        memory=memory,
        resident_layers=resident_layers,
        source=weights,
        device=resolve_device("auto"),
    )
    show_result(generated, as_json, screen.generated)


@app.command()
def gc(
    home: Home = HOME,
    store: Annotated[str | None, typer.Option(help="Not the home's, but this one.")] = None,
    tracking_uri: Annotated[
        str | None, typer.Option(help="The MLflow whose versions are kept, if not the home's.")
    ] = None,
    days: Annotated[float, typer.Option(min=0, help="What is younger is kept.")] = 30,
    abandon: Annotated[
        list[str] | None, typer.Option(metavar="RUN", help="A killed run, not to be resumed.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove results and trees that are old and that no registered version stands on."""
    from layerwright.flows.command_line import screen
    from layerwright.flows.command_line.cleaning import clean

    removed = clean(
        home.resolve(), store, tracking_uri, days=days, dry=dry_run, abandoned=abandon or ()
    )
    show_result(removed, as_json, screen.cleaned)


@app.command()
def methods(as_json: AsJson = False) -> None:
    """List strategies, profilers, selectors, metrics and model families."""
    from layerwright.flows.command_line import screen
    from layerwright.flows.command_line.catalogue import catalogue

    show_result(catalogue(), as_json, screen.methods)


@app.command()
def doctor(
    home: Home = HOME,
    store: Annotated[str | None, typer.Option(help="Also check this store.")] = None,
    as_json: AsJson = False,
) -> None:
    """Check versions, devices, stores and known clashes; exit status 1 if something is broken."""
    from layerwright.flows.command_line import doctor as checks
    from layerwright.flows.command_line import screen
    from layerwright.flows.session import embedded

    embedded.configure(home.resolve())
    findings = checks.examine(home.resolve(), store)
    show_result({"checks": findings}, as_json, screen.findings)
    if any(finding["state"] == "broken" for finding in findings):
        raise typer.Exit(1)


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


def _finish(summary: dict[str, Any], as_json: bool) -> None:
    from layerwright.flows.command_line import screen

    show_result(summary, as_json, screen.summary)
    if summary["decision"] == "rejected":
        raise typer.Exit(REJECTED)


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
    logger.propagate = False  # Prefect's root handler would say everything twice


def main() -> None:
    """Entry point of the ``layerwright`` command."""
    _log_to_stderr()
    try:
        app()
    except LayerwrightError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_status) from None
    except KeyboardInterrupt:
        print("interrupted: the same command goes on where it stopped", file=sys.stderr)
        raise SystemExit(130) from None
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
