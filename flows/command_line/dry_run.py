"""Show which steps are cached, and estimate time, memory and disk of the others."""

import contextlib
from typing import Literal

from rich.console import Console

from layerwright.flows.command_line.options import new_table
from layerwright.flows.session.prepare import Prepared
from layerwright.flows.session.runs import RunFolder
from layerwright.tasks.contracts.base import Contract
from layerwright.tasks.steps import Step, steps


class StepOutlook(Contract):
    """One step: cached, or with an estimate of its seconds; None if that is unknown."""

    step: str
    state: Literal["cached", "to do"]
    seconds: float | None


class Outlook(Contract):
    """The steps of a run. Sizes are None before the fetch; ``basis`` explains the times."""

    steps: tuple[StepOutlook, ...]
    memory_bytes: int | None
    disk_bytes: int | None
    basis: str


def outlook(prepared: Prepared) -> Outlook:
    """Walk the DAG through the cache until the first step that is not cached. Times are estimated
    from a matrix product that is timed now, within a factor of about two.
    """
    from layerwright.flows.convert import conversion
    from layerwright.flows.session.session import Session
    from layerwright.tasks.fetch.task import fetch_model
    from layerwright.tasks.orchestration.place import NotCached

    recipe, pins = prepared.recipe, prepared.pins
    folder = RunFolder(prepared.home, "dry-run")  # a name only: nothing is written
    session = Session(recipe, pins, folder, prepared.plan, dry=True)
    run, pin = session.run, pins["model"]
    model = fetch_model.cached_result(recipe.model, recipe.data_root, pin, place=run.place)
    with contextlib.suppress(NotCached):
        conversion(session)
    if model is None:
        run.hits["fetch"] = False
    parameters = model.parameters if model else None
    token_seconds = 2 * parameters / _flops_per_second() if parameters else None

    def seconds(step: Step) -> float | None:
        if run.hits.get(step.name):
            return 0.0
        return step.estimate(recipe, model, token_seconds) if model and token_seconds else None

    width = 4  # bytes of a parameter
    return Outlook(
        steps=tuple(
            StepOutlook(
                step=name, state="cached" if run.hits.get(name) else "to do", seconds=seconds(step)
            )
            for name, step in steps().items()
            if step.block is None or getattr(recipe, step.block)
        ),
        # base, candidate and their logits; training also keeps activations for gradients
        memory_bytes=int(2.5 * parameters * width + 1.6e9) if parameters else None,
        disk_bytes=3 * parameters * width if parameters else None,
        basis="measured matrix product" if parameters else "unknown until the model is fetched",
    )


def _flops_per_second(size: int = 768) -> float:
    import torch
    from torch.utils.benchmark import Timer

    given, threads = {"a": torch.randn(size, size)}, torch.get_num_threads()
    timer = Timer("a @ a", globals=given, num_threads=threads)
    return 2 * size**3 / timer.blocked_autorange(min_run_time=0.05).median


def show_outlook(console: Console, outlook: Outlook) -> None:
    """A dry run."""
    table = new_table("What this run would do", "step", "state", "about")
    for step in outlook.steps:
        about = "-" if step.seconds is None else f"{step.seconds:.0f} s"
        table.add_row(step.step, step.state, about)
    console.print(table)
    for name, size in (("memory", outlook.memory_bytes), ("disk", outlook.disk_bytes)):
        console.print(f"{name:7} {'-' if size is None else f'about {size / 1e9:.1f} GB'}")
    console.print(f"basis   {outlook.basis}")
