"""What a recipe names from outside: its sources, pinned, and the texts that each flow needs."""

from __future__ import annotations

from collections.abc import Iterable

from layerwright.tasks.components import build
from layerwright.tasks.contracts.base import Spec
from layerwright.tasks.contracts.costs import CostTable
from layerwright.tasks.contracts.profile import ModelProfile
from layerwright.tasks.contracts.references import Calibration, ModelRef, TextRef
from layerwright.tasks.costs.task import measure_costs
from layerwright.tasks.evaluate.base import Metric
from layerwright.tasks.evaluate.suite import check_items
from layerwright.tasks.evaluate.suite import needed_texts as texts_needed_by
from layerwright.tasks.fetch.task import fetch_text
from layerwright.tasks.orchestration.place import Run
from layerwright.tasks.recipe.choose import ChooseOptions
from layerwright.tasks.recipe.convert import ConvertOptions
from layerwright.tasks.recipe.profile import ProfileOptions
from layerwright.tasks.recipe.recipe import Recipe
from layerwright.tasks.strategies.specs import resolved_specs


def texts_of(metrics: Iterable[Spec]) -> tuple[str, ...]:
    """The texts that metrics read, each once, in order."""
    return texts_needed_by(build(Metric, spec) for spec in metrics)


def evaluated_texts(recipe: Recipe) -> tuple[str, ...]:
    return texts_of(recipe.evaluate.metrics) if recipe.evaluate else ()


def needed_texts(recipe: Recipe) -> tuple[str, ...]:
    """Every text that converting needs; the recipe may define more."""
    trained = trained_texts(recipe)
    return tuple(dict.fromkeys((*measured_texts(recipe), *trained, *evaluated_texts(recipe))))


def trained_texts(recipe: Recipe) -> tuple[str, ...]:
    """The texts that are trained on, and those that the training is judged on."""
    names: list[str] = []
    for options in (recipe.regularize, recipe.finetune):
        if options:
            names += [options.text, *([options.validation.text] if options.validation else [])]
    return tuple(names)


def surveyed_texts(recipe: Recipe) -> tuple[str, ...]:
    """Every text that the survey reads."""
    options = recipe.survey
    names = (*measured_texts(recipe), *texts_of(options.metrics))
    if options.stability:
        names += (options.stability.text, *options.stability.held_out)
    return tuple(dict.fromkeys(names))


def measured_texts(recipe: Recipe) -> tuple[str, ...]:
    """The texts that layers are profiled and fitted on."""
    return (recipe.profile.text, *((recipe.convert.text,) if recipe.convert else ()))


def calibration(recipe: Recipe, texts: dict[str, TextRef]) -> Calibration:
    """What strategies are fitted on: the recipe's convert block, or the profile's rows."""
    return _rows(recipe.convert or recipe.profile, texts)


def profiled(recipe: Recipe, texts: dict[str, TextRef]) -> Calibration:
    """The rows that layers are profiled, and plans tried, on."""
    return _rows(recipe.profile, texts)


def _rows(wanted: ProfileOptions | ConvertOptions, texts: dict[str, TextRef]) -> Calibration:
    return Calibration(text=texts[wanted.text], rows=wanted.rows, row_tokens=wanted.row_tokens)


def measured_costs(
    recipe: Recipe,
    model: ModelRef,
    profile: ModelProfile,
    chosen: Iterable[ChooseOptions],
    run: Run,
    more: Iterable[Spec] = (),
) -> CostTable | None:
    """The cost table of all that plans are chosen from, where the recipe asks for one.

    Args:
        more: strategies that stand in a plan given by hand.
    """
    if recipe.costs is None:
        return None
    choices = tuple(chosen)
    lengths = dict.fromkeys(options.context_tokens for options in choices)
    options = recipe.costs.model_copy(
        update={"context_tokens": recipe.costs.context_tokens or tuple(lengths)}
    )
    wanted = [*(spec for options in choices for spec in options.strategies), *more]
    return measure_costs(model, resolved_specs(wanted, profile), options, run=run)


def fetch_texts(
    recipe: Recipe, pins: dict[str, str], run: Run, names: Iterable[str] | None = None
) -> dict[str, TextRef]:
    """Fetch texts by name (default: all that converting needs).

    Raises:
        InputError: items that the metrics cannot ask, with file, line and field.
    """
    wanted = needed_texts(recipe) if names is None else names
    texts = {
        name: fetch_text(recipe.data[name], recipe.data_root, pins[f"data.{name}"], run=run)
        for name in wanted
    }
    measured = [options.metrics for options in (recipe.evaluate, recipe.survey) if options]
    metrics = [build(Metric, spec) for specs in measured for spec in specs]
    check_items(metrics, texts, run.place.open_store())
    return texts
