"""The survey flow: profile and choose only; every selector's plan measured on the same tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow

from layerwright.flows.outcome.survey import SurveyOutcome, keep_survey
from layerwright.flows.session.inputs import (
    calibration,
    fetch_texts,
    measured_costs,
    profiled,
    surveyed_texts,
)
from layerwright.tasks.choose.task import choose_plan
from layerwright.tasks.contracts.base import Spec
from layerwright.tasks.contracts.costs import CostTable
from layerwright.tasks.contracts.plan import ConversionPlan
from layerwright.tasks.contracts.references import ModelRef, TextRef
from layerwright.tasks.contracts.stability import Stability
from layerwright.tasks.evaluate.task import measure_plans
from layerwright.tasks.fetch.task import fetch_model
from layerwright.tasks.orchestration.place import Place, Run
from layerwright.tasks.profile.task import profile_model
from layerwright.tasks.recipe.recipe import Recipe
from layerwright.tasks.report.task import write_survey


@flow(name="survey", flow_run_name="{run_id}", validate_parameters=False)
def survey(recipe: Recipe, pins: dict[str, str], run_id: str, place: Place) -> dict[str, Any]:
    """fetch -> profile -> choose, once per plan of the survey -> measure."""
    return comparison(recipe, pins, run_id, Run(place))


def comparison(recipe: Recipe, pins: dict[str, str], run_id: str, run: Run) -> dict[str, Any]:
    """The survey's result as JSON: plans and figures by the survey's names, and the frontier."""
    options = recipe.survey
    texts = fetch_texts(recipe, pins, run, surveyed_texts(recipe))
    model = fetch_model(recipe.model, recipe.data_root, pins["model"], run=run)
    points = options.points()
    asked = options.plans | points
    strategies = {
        spec.model_dump_json(): spec for plan in asked.values() for spec in plan.strategies
    }
    wanted = tuple(strategies.values())
    profile = profile_model(model, texts[recipe.profile.text], recipe.profile, wanted, run=run)
    costs = measured_costs(recipe, model, profile, asked.values(), run)
    rows, tried_on = calibration(recipe, texts), profiled(recipe, texts)
    plans = {
        name: choose_plan(model, profile, tried_on, rows, how, costs, run=run)
        for name, how in asked.items()
    }
    measured = measure_plans(model, plans, texts, options.metrics, rows, run=run)
    budgets = dict(zip(points, options.frontier, strict=True))
    named = {name: plans[name] for name in options.plans}
    stability = chosen_again(recipe, model, texts, wanted, named, costs, run)
    outcome = SurveyOutcome(
        run_id, recipe, model, texts, profile, plans, budgets, measured, costs, stability
    )
    bundle = outcome.bundle(run)
    folder = Path(run.place.home) / "runs" / run_id
    page = write_survey(bundle, str(folder / "survey.html"), run=run)
    return keep_survey(bundle, run, page.uri)


def chosen_again(
    recipe: Recipe,
    model: ModelRef,
    texts: dict[str, TextRef],
    strategies: tuple[Spec, ...],
    plans: dict[str, ConversionPlan],
    costs: CostTable | None,
    run: Run,
) -> Stability | None:
    """The survey's plans from a second text, where the recipe asks for it.

    That text takes the place of the profile's and of the one that strategies are fitted on.
    """
    options = recipe.survey.stability
    if options is None:
        return None
    there = {"text": options.text}
    other = recipe.model_copy(
        update={
            "profile": recipe.profile.model_copy(update=there),
            "convert": recipe.convert and recipe.convert.model_copy(update=there),
        }
    )
    profile = profile_model(model, texts[options.text], other.profile, strategies, run=run)
    here_rows, there_rows = calibration(recipe, texts), calibration(other, texts)
    again = {
        name: choose_plan(model, profile, profiled(other, texts), there_rows, how, costs, run=run)
        for name, how in recipe.survey.plans.items()
    }
    size = {"rows": options.rows, "row_tokens": options.row_tokens}
    metrics = tuple(
        Spec(name=metric, texts=list(options.held_out), **size)
        for metric in ("perplexity", "divergence")
    )
    return Stability(
        texts=(recipe.profile.text, options.text),
        held_out=options.held_out,
        profile=profile,
        plans=again,
        measured=(
            measure_plans(model, plans, texts, metrics, here_rows, run=run),
            measure_plans(model, again, texts, metrics, there_rows, run=run),
        ),
    )
