"""The convert flow: the whole DAG, from a recipe to a registered challenger or a rejection."""

from __future__ import annotations

import logging
from pathlib import Path

from prefect import flow

from layerwright.flows.outcome.convert import Outcome, keep_outcome
from layerwright.flows.session.inputs import (
    calibration,
    evaluated_texts,
    fetch_texts,
    measured_costs,
    profiled,
)
from layerwright.flows.session.runs import RunFolder
from layerwright.tasks.choose.repair import next_round
from layerwright.tasks.choose.task import choose_plan
from layerwright.tasks.contracts.plan import ConversionPlan, PlanItem, RepairRound
from layerwright.tasks.contracts.references import Calibration, CheckpointRef, ModelRef, TextRef
from layerwright.tasks.contracts.run import RunSummary
from layerwright.tasks.contracts.training import FinetuneReport, RegularizationReport
from layerwright.tasks.convert.task import convert_model
from layerwright.tasks.evaluate.task import evaluate_models
from layerwright.tasks.fetch.task import fetch_model
from layerwright.tasks.finetune.task import finetune_model, regularize_model
from layerwright.tasks.gate.task import decide
from layerwright.tasks.orchestration.place import Place, Run
from layerwright.tasks.profile.task import profile_model
from layerwright.tasks.recipe.recipe import Recipe
from layerwright.tasks.register.champion import current_champion
from layerwright.tasks.register.task import register_model
from layerwright.tasks.report.task import write_report

logger = logging.getLogger("layerwright")


@flow(name="convert", flow_run_name="{run_id}", validate_parameters=False)
def convert(
    recipe: Recipe, pins: dict[str, str], run_id: str, place: Place, plan: ConversionPlan | None
) -> RunSummary:
    """fetch, profile, measure_costs, choose, regularize, convert, finetune, evaluate, gate and
    register."""
    tracked = place.model_copy(
        update={"run_id": run_id, "tracking_uri": tracking_uri(recipe, place.home)}
    )
    return conversion(recipe, pins, run_id, Run(tracked), plan)


def tracking_uri(recipe: Recipe, home: str) -> str:
    """The MLflow server of the recipe, or the embedded one."""
    named = recipe.registry.tracking_uri if recipe.registry else None
    return named or f"sqlite:///{home}/mlflow.db"


def conversion(
    recipe: Recipe, pins: dict[str, str], run_id: str, run: Run, plan: ConversionPlan | None
) -> RunSummary:
    """The DAG itself. A dry run walks it until the first step that is not cached."""
    texts = fetch_texts(recipe, pins, run)
    model = fetch_model(recipe.model, recipe.data_root, pins["model"], run=run)
    profile = profile_model(
        model, texts[recipe.profile.text], recipe.profile, recipe.choose.strategies, run=run
    )
    given = [item.spec for item in plan.items] if plan else []
    costs = measured_costs(recipe, model, profile, [recipe.choose], run, given)
    rows = calibration(recipe, texts)
    plan = plan or choose_plan(
        model, profile, profiled(recipe, texts), rows, recipe.choose, costs, run=run
    )
    control = control_arm(recipe, model, plan.context_tokens, rows, texts, run)
    champion = current_champion(
        recipe.registry,
        tracking_uri=tracking_uri(recipe, run.place.home),
        base_sha256=model.sha256,
        store=run.place.open_store(),
    )
    wanted = {name: texts[name] for name in evaluated_texts(recipe)}
    repairs: list[RepairRound] = []
    while True:
        regularized = regularize(recipe, model, plan, texts, run)
        prepared = regularized.model if regularized else None
        converted = convert_model(model, plan, rows, prepared, run=run)
        healing = heal(recipe, model, converted, texts, run)
        candidate = healing.checkpoint if healing else converted
        report = evaluate_models(
            model, candidate, control, champion, wanted, recipe.evaluate, run=run
        )
        decision = decide(report, recipe.gate, run=run)
        if decision.accepted or recipe.repair is None:
            break
        rejected, repaired = next_round(recipe.repair, len(repairs), plan, profile, decision, costs)
        repairs.append(rejected)
        if repaired is None:
            break
        logger.info("repair    layers %s given back", ", ".join(map(str, rejected.given_back)))
        plan = repaired

    outcome = Outcome(
        run_id, recipe, model, texts, profile, plan, converted, healing, report, decision,
        repairs=tuple(repairs), regularization=regularized, costs=costs,
    )  # fmt: skip
    folder = Path(run.place.home) / "runs" / run_id
    page = write_report(outcome.bundle(run), str(folder / "report.html"), run=run)
    card = RunFolder(Path(run.place.home), run_id).write("README.md", outcome.card(run))
    if decision.accepted:
        outcome.registered = register_model(
            candidate, plan, report, decision, recipe.registry,
            tracking_uri(recipe, run.place.home), run_id, str(folder / "report.html"), str(card),
            outcome.cost(run), run=run,
        )  # fmt: skip
        page = write_report(outcome.bundle(run), str(folder / "report.html"), run=run)
    return keep_outcome(outcome, run, folder, page.uri)


def regularize(
    recipe: Recipe, base: ModelRef, plan: ConversionPlan, texts: dict[str, TextRef], run: Run
) -> RegularizationReport | None:
    """The regularize step, where the recipe has one and the plan takes a layer out.

    A selector may find nothing to take out, and repair may give back all that was.
    """
    options = recipe.regularize
    if options is None:
        return None
    if not any(item.strategy in options.strategies for item in plan.items):
        logger.info("regularize left out: the plan has no %s", " or ".join(options.strategies))
        return None
    held_out = texts[options.validation.text] if options.validation else None
    return regularize_model(base, plan, texts[options.text], held_out, options, run=run)


def heal(
    recipe: Recipe, base: ModelRef, checkpoint: CheckpointRef, texts: dict[str, TextRef], run: Run
) -> FinetuneReport | None:
    """The finetune step, where the recipe has one."""
    if recipe.finetune is None:
        return None
    options = recipe.finetune
    held_out = texts[options.validation.text] if options.validation else None
    return finetune_model(base, checkpoint, texts[options.text], held_out, options, run=run)


def control_arm(
    recipe: Recipe,
    model: ModelRef,
    context_tokens: int,
    rows: Calibration,
    texts: dict[str, TextRef],
    run: Run,
) -> CheckpointRef | None:
    """The base, healed like a candidate but not converted, where the recipe asks for it."""
    if not recipe.evaluate.control:
        return None
    logger.info("control   the base, trained like the candidate that comes after it")
    unchanged = convert_model(model, unchanged_plan(model, context_tokens), rows, run=run)
    trained = heal(recipe, model, unchanged, texts, run)
    return trained.checkpoint if trained else unchanged


def unchanged_plan(model: ModelRef, context_tokens: int) -> ConversionPlan:
    """Every layer kept: what the control arm is made of."""
    return ConversionPlan(
        model_sha256=model.sha256,
        layers=model.layers,
        context_tokens=context_tokens,
        selector="control",
        items=(PlanItem(start=0, stop=model.layers, strategy="keep", reason="control arm"),),
    )
