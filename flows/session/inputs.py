"""Compute the inputs of the steps from a session's recipe: model, texts, rows, cost table."""

from collections.abc import Iterable
from itertools import chain

from layerwright.flows.session.session import Session
from layerwright.flows.session.sources import evaluated_texts, texts_of_flow
from layerwright.tasks.contracts.costs import CostTable
from layerwright.tasks.contracts.evaluation import Champion, EvalReport
from layerwright.tasks.contracts.items import ItemResult, read_items
from layerwright.tasks.contracts.profile import ModelProfile
from layerwright.tasks.contracts.references import Calibration, CheckpointRef, ModelRef, TextRef
from layerwright.tasks.costs.task import measure_costs
from layerwright.tasks.evaluate.suite import check_items
from layerwright.tasks.evaluate.task import evaluate_models
from layerwright.tasks.fetch.task import fetch_model, fetch_text
from layerwright.tasks.recipe.choose import ChooseOptions
from layerwright.tasks.recipe.profile import ProfileOptions
from layerwright.tasks.recipe.recipe import ConvertOptions, Recipe
from layerwright.tasks.strategies.base import Strategy
from layerwright.tasks.strategies.specs import resolved


def fetch_base(session: Session) -> ModelRef:
    """The recipe's model."""
    recipe = session.recipe
    return fetch_model(recipe.model, recipe.data_root, session.pins["model"], run=session.run)


def fetch_texts(session: Session, flow: str) -> dict[str, TextRef]:
    """Every text that a flow reads, by name; InputError if the metrics cannot use an item; the
    error names file, line and field.
    """
    recipe, pins, run = session.recipe, session.pins, session.run
    texts = {
        name: fetch_text(recipe.data[name], recipe.data_root, pins[f"data.{name}"], run=run)
        for name in texts_of_flow(recipe, flow)
    }
    measured = [options.metrics for options in (recipe.evaluate, recipe.survey) if options]
    check_items(chain.from_iterable(measured), texts, session.open_store())
    return texts


def calibration(recipe: Recipe, texts: dict[str, TextRef]) -> Calibration:
    """The rows that strategies are fitted on: the recipe's convert block, or the profile's."""
    return _rows(recipe.convert or recipe.profile, texts)


def profiled(recipe: Recipe, texts: dict[str, TextRef]) -> Calibration:
    """The rows on which layers are profiled and plans are tried."""
    return _rows(recipe.profile, texts)


def _rows(wanted: ProfileOptions | ConvertOptions, texts: dict[str, TextRef]) -> Calibration:
    return Calibration(text=texts[wanted.text], rows=wanted.rows, row_tokens=wanted.row_tokens)


def measured_costs(
    session: Session,
    model: ModelRef,
    profile: ModelProfile,
    chosen: Iterable[ChooseOptions],
    more: Iterable[Strategy] = (),
) -> CostTable | None:
    """The cost table of all strategies that a plan can use, if the recipe has a `costs` block;
    ``more`` are strategies of a plan that the user gave.
    """
    recipe = session.recipe
    if recipe.costs is None:
        return None
    choices = tuple(chosen)
    lengths = dict.fromkeys(options.context_tokens for options in choices)
    options = recipe.costs.model_copy(
        update={"context_tokens": recipe.costs.context_tokens or tuple(lengths)}
    )
    wanted = [*(strategy for choice in choices for strategy in choice.strategies), *more]
    return measure_costs(model, resolved(wanted, profile), options, run=session.run)


def evaluated(
    session: Session,
    base: ModelRef,
    candidate: CheckpointRef,
    champion: Champion | None,
    texts: dict[str, TextRef],
    control: CheckpointRef | None = None,
) -> EvalReport:
    """Measure the recipe's metrics of every arm on the same items."""
    recipe = session.recipe
    assert recipe.evaluate is not None  # the flow needs the block
    wanted = {name: texts[name] for name in evaluated_texts(recipe)}
    return evaluate_models(
        base, candidate, control, champion, wanted, recipe.evaluate, run=session.run
    )


def items_of(session: Session, report: EvalReport) -> tuple[ItemResult, ...]:
    """The per-item results of an evaluation."""
    kept = report.items
    return read_items(session.open_store().open_tree(kept.sha256)) if kept else ()
