"""List the components of this installation by name, with their options."""

from rich.console import Console

from layerwright.flows.command_line.options import new_table
from layerwright.tasks.choose.base import Selector
from layerwright.tasks.components import Component, discover
from layerwright.tasks.contracts.base import Contract
from layerwright.tasks.evaluate.base import Metric
from layerwright.tasks.finetune.objectives.base import Objective
from layerwright.tasks.hybrid.families import FAMILIES
from layerwright.tasks.profile.base import Profiler
from layerwright.tasks.strategies.base import Strategy

KINDS: dict[str, type[Component]] = {
    "strategies": Strategy,
    "profilers": Profiler,
    "selectors": Selector,
    "objectives": Objective,
    "metrics": Metric,
}


class Described(Contract):
    """One component: the first line of its docstring, and the default of each option."""

    purpose: str
    options: dict[str, str]


class Catalogue(Contract):
    """Names by kind, model families, and under ``options`` every component by kind and name."""

    strategies: tuple[str, ...]
    profilers: tuple[str, ...]
    selectors: tuple[str, ...]
    objectives: tuple[str, ...]
    metrics: tuple[str, ...]
    families: tuple[str, ...]
    options: dict[str, dict[str, Described]]


def catalogue() -> Catalogue:
    """Every component that is installed."""
    options = {
        kind: {name: _described(component) for name, component in discover(base).items()}
        for kind, base in KINDS.items()
    }
    names = {kind: tuple(components) for kind, components in options.items()}
    return Catalogue(**names, families=tuple(FAMILIES), options=options)


def _described(component: type[Component]) -> Described:
    options = {
        name: str(
            "required" if field.is_required() else field.get_default(call_default_factory=True)
        )
        for name, field in component.model_fields.items()
    }
    return Described(purpose=(component.__doc__ or "").strip().split("\n")[0], options=options)


def show_methods(console: Console, catalogue: Catalogue) -> None:
    """Every component with its purpose and options."""
    for kind, components in catalogue.options.items():
        table = new_table(kind.capitalize(), "name", "purpose", "options")
        for name, about in components.items():
            options = ", ".join(f"{k}={v}" for k, v in about.options.items())
            table.add_row(name, about.purpose, options)
        console.print(table)
    console.print(f"Families: {', '.join(catalogue.families)}")
