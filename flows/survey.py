"""The survey flow: profile, choose, and measure every selector's plan on the same tokens."""

from __future__ import annotations

from typing import Any

from prefect import flow

from layerwright.flows.outcome.survey import SurveyOutcome, keep_survey
from layerwright.flows.session.inputs import (
    calibration,
    fetch_base,
    fetch_texts,
    measured_costs,
    profiled,
)
from layerwright.flows.session.second_text import chosen_again
from layerwright.flows.session.session import Session, session
from layerwright.tasks.choose.task import choose_plan
from layerwright.tasks.contracts.survey import SurveyResult
from layerwright.tasks.evaluate.task import measure_plans
from layerwright.tasks.profile.task import profile_model


@flow(name="survey", persist_result=False, validate_parameters=False)
def survey(
    recipe: str,
    assignments: list[str] | None = None,
    home: str | None = None,
    run: str | None = None,
) -> Any:
    """Compare the selectors of a recipe; the arguments are those of `convert`."""
    with session("survey", recipe, assignments, home, run) as opened:
        return comparison(opened)


def comparison(session: Session) -> SurveyResult:
    """fetch -> profile -> choose, once per plan of the survey -> measure."""
    recipe, run, options = session.recipe, session.run, session.recipe.survey
    assert options is not None  # checked before the session opened
    texts = fetch_texts(session, "survey")
    model = fetch_base(session)
    asked = options.plans | options.points()
    strategies = options.strategies()
    text = texts[recipe.profile.text]
    profile = profile_model(model, text, recipe.profile, strategies, run=run)
    costs = measured_costs(session, model, profile, asked.values())
    rows, tried_on = calibration(recipe, texts), profiled(recipe, texts)
    plans = {
        name: choose_plan(model, profile, tried_on, rows, how, costs, run=run)
        for name, how in asked.items()
    }
    measured = measure_plans(model, plans, texts, options.metrics, rows, run=run)
    stability = chosen_again(session, model, texts, plans, costs)
    outcome = SurveyOutcome(session, model, texts, profile, plans, measured, costs, stability)
    return keep_survey(outcome)
