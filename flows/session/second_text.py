"""Choose a survey's plans again from a second text, to measure how much the text matters."""

from __future__ import annotations

from layerwright.flows.session.inputs import calibration, profiled
from layerwright.flows.session.session import Session
from layerwright.tasks.choose.task import choose_plan
from layerwright.tasks.contracts.costs import CostTable
from layerwright.tasks.contracts.plan import ConversionPlan
from layerwright.tasks.contracts.references import ModelRef, TextRef
from layerwright.tasks.contracts.survey import Stability
from layerwright.tasks.evaluate.metrics.divergence import Divergence
from layerwright.tasks.evaluate.metrics.perplexity import Perplexity
from layerwright.tasks.evaluate.task import measure_plans
from layerwright.tasks.profile.task import profile_model


def chosen_again(
    session: Session,
    model: ModelRef,
    texts: dict[str, TextRef],
    plans: dict[str, ConversionPlan],
    costs: CostTable | None,
) -> Stability | None:
    """The survey's own plans from a second text, if the recipe asks for it.

    The second text replaces the profile's text and the text that strategies are fitted on. Points
    of the frontier are not chosen again.
    """
    recipe, run = session.recipe, session.run
    survey = recipe.survey
    assert survey is not None  # a survey needs the block
    options = survey.stability
    if options is None:
        return None
    text = {"text": options.text}
    other = recipe.model_copy(
        update={
            "profile": recipe.profile.model_copy(update=text),
            "convert": recipe.convert and recipe.convert.model_copy(update=text),
        }
    )
    strategies = survey.strategies()
    profile = profile_model(model, texts[options.text], other.profile, strategies, run=run)
    first_rows, second_rows = calibration(recipe, texts), calibration(other, texts)
    again = {
        name: choose_plan(model, profile, profiled(other, texts), second_rows, how, costs, run=run)
        for name, how in survey.plans.items()
    }
    size = {"rows": options.rows, "row_tokens": options.row_tokens}
    metrics = tuple(metric(texts=options.held_out, **size) for metric in (Perplexity, Divergence))
    first = {name: plans[name] for name in again}
    return Stability(
        texts=(recipe.profile.text, options.text),
        held_out=options.held_out,
        profile=profile,
        plans=again,
        measured=(
            measure_plans(model, first, texts, metrics, first_rows, run=run),
            measure_plans(model, again, texts, metrics, second_rows, run=run),
        ),
    )
