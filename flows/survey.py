"""The survey flow: profile, choose, and measure every selector's plan on the same tokens."""

from __future__ import annotations

from typing import Any

from prefect import flow

from layerwright.flows.outcome.survey import SurveyOutcome, keep_survey
from layerwright.flows.session import inputs
from layerwright.flows.session.session import Session, session
from layerwright.tasks.choose.task import choose_plan
from layerwright.tasks.contracts.costs import CostTable
from layerwright.tasks.contracts.plan import ConversionPlan
from layerwright.tasks.contracts.references import ModelRef, TextRef
from layerwright.tasks.contracts.survey import Stability, SurveyResult
from layerwright.tasks.evaluate.metrics.divergence import Divergence
from layerwright.tasks.evaluate.metrics.perplexity import Perplexity
from layerwright.tasks.evaluate.task import measure_plans
from layerwright.tasks.profile.task import profile_model
from layerwright.tasks.recipe.survey import SurveyOptions


@flow(persist_result=False, validate_parameters=False)
def survey(
    recipe: str,
    assignments: list[str] | None = None,
    home: str | None = None,
    run: str | None = None,
) -> Any:
    """Compare the selectors of a recipe; the arguments are those of `convert`."""
    with session("survey", recipe, assignments, home, run) as opened:
        options = opened.recipe.survey
        assert options is not None  # checked before the session opened
        return _comparison(opened, options)


def _comparison(session: Session, options: SurveyOptions) -> SurveyResult:
    """fetch -> profile -> choose, once per plan of the survey -> measure."""
    recipe, run = session.recipe, session.run
    texts = inputs.fetch_texts(session, "survey")
    model = inputs.fetch_base(session)
    asked, text = options.plans | options.points(), texts[recipe.profile.text]
    profile = profile_model(model, text, recipe.profile, options.strategies(), run=run)
    costs = inputs.measured_costs(session, model, profile, asked.values())
    rows, tried_on = inputs.calibration(recipe, texts), inputs.profiled(recipe, texts)
    plans = {
        name: choose_plan(model, profile, tried_on, rows, how, costs, run=run)
        for name, how in asked.items()
    }
    measured = measure_plans(model, plans, texts, options.metrics, rows, run=run)
    stability = _chosen_again(session, options, model, texts, plans, costs)
    outcome = SurveyOutcome(session, model, texts, profile, plans, measured, costs, stability)
    return keep_survey(outcome)


def _chosen_again(
    session: Session,
    survey: SurveyOptions,
    model: ModelRef,
    texts: dict[str, TextRef],
    plans: dict[str, ConversionPlan],
    costs: CostTable | None,
) -> Stability | None:
    """The survey's own plans from a second text, if the recipe asks for it.

    The second text replaces the profile's text and the text that strategies are fitted on. Points
    of the frontier are not chosen again.
    """
    recipe, run, options = session.recipe, session.run, survey.stability
    if options is None:
        return None
    text = {"text": options.text}
    changed = {
        "profile": recipe.profile.model_copy(update=text),
        "convert": recipe.convert and recipe.convert.model_copy(update=text),
    }
    other, strategies = recipe.model_copy(update=changed), survey.strategies()
    profile = profile_model(model, texts[options.text], other.profile, strategies, run=run)
    first_rows, second_rows = (inputs.calibration(each, texts) for each in (recipe, other))
    tried_on = inputs.profiled(other, texts)
    again = {
        name: choose_plan(model, profile, tried_on, second_rows, how, costs, run=run)
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
