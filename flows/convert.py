"""The convert flow: the whole DAG, from a recipe to a registered challenger or a rejection."""

from __future__ import annotations

import logging
from typing import Any

from prefect import flow

from layerwright.flows.outcome.convert import Outcome, keep_outcome
from layerwright.flows.session import inputs
from layerwright.flows.session.session import Session, judged, session
from layerwright.tasks.choose.repair import next_round
from layerwright.tasks.choose.task import choose_plan
from layerwright.tasks.contracts.plan import ConversionPlan, RepairRound
from layerwright.tasks.contracts.references import Calibration, CheckpointRef, ModelRef, TextRef
from layerwright.tasks.contracts.run import RunSummary
from layerwright.tasks.contracts.training import FinetuneReport, RegularizationReport
from layerwright.tasks.convert.task import convert_model
from layerwright.tasks.export.task import export_checkpoint
from layerwright.tasks.finetune.task import finetune_model, regularize_model
from layerwright.tasks.gate.task import decide
from layerwright.tasks.profile.task import profile_model
from layerwright.tasks.register.task import register_model
from layerwright.tasks.strategies.specs import strategy_of

logger = logging.getLogger("layerwright")


@flow(persist_result=False, validate_parameters=False)
def convert(
    recipe: str,
    assignments: list[str] | None = None,
    home: str | None = None,
    run: str | None = None,
) -> Any:
    """Convert a model by a recipe; the state is `Completed`, or `Rejected` by the gate.

    Args:
        recipe: a path in the repository, or ``s3://bucket/key``.
        assignments: changes of the recipe, as `--set a.b=c` of the command line.
        home: the home folder; default LAYERWRIGHT_HOME.
        run: the id of a run that the command line has prepared in the home.
    """
    with session("convert", recipe, assignments, home, run) as opened:
        return judged(conversion(opened))


def conversion(session: Session) -> RunSummary:
    """The DAG itself. A dry run walks it until the first step that is not cached."""
    recipe, run = session.recipe, session.run
    assert recipe.choose is not None  # checked before the session opened
    texts = inputs.fetch_texts(session, "convert")
    model = inputs.fetch_base(session)
    text, strategies = texts[recipe.profile.text], recipe.choose.strategies
    profile = profile_model(model, text, recipe.profile, strategies, run=run)
    given = [strategy_of(item) for item in session.plan.items] if session.plan else []
    costs = inputs.measured_costs(session, model, profile, [recipe.choose], given)
    rows, tried_on = inputs.calibration(recipe, texts), inputs.profiled(recipe, texts)
    plan = session.plan or choose_plan(
        model, profile, tried_on, rows, recipe.choose, costs, run=run
    )
    control = _control_arm(session, model, plan.context_tokens, rows, texts)
    champion = session.champion(model)
    repairs: list[RepairRound] = []
    while True:
        regularized = _regularize(session, model, plan, texts)
        prepared = regularized.model if regularized else None
        converted = convert_model(model, plan, rows, prepared, run=run)
        healing = _heal(session, model, converted, texts)
        candidate = healing.checkpoint if healing else converted
        report = inputs.evaluated(session, model, candidate, champion, texts, control)
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
        session, model, texts, profile, plan, converted, healing, report, decision,
        repairs=tuple(repairs), regularization=regularized, costs=costs,
    )  # fmt: skip
    if decision.accepted:
        outcome.served = export_checkpoint(candidate, run=run)
    page, evidence = outcome.write_page(), outcome.evidence()
    if decision.accepted:
        outcome.registered = register_model(
            evidence, recipe.registry, session.tracking_uri, run=run
        )
        page = outcome.write_page()
    return keep_outcome(outcome, page)


def _regularize(
    session: Session, base: ModelRef, plan: ConversionPlan, texts: dict[str, TextRef]
) -> RegularizationReport | None:
    """The regularize step, if the recipe has one and the plan removes a layer.

    A selector can find no layer to remove, and repair can restore every removed layer.
    """
    options = session.recipe.regularize
    if options is None:
        return None
    if not any(item.strategy in options.strategies for item in plan.items):
        logger.info("regularize skipped: the plan has no %s", " or ".join(options.strategies))
        return None
    held_out = texts[options.validation.text] if options.validation else None
    return regularize_model(base, plan, texts[options.text], held_out, options, run=session.run)


def _heal(
    session: Session, base: ModelRef, checkpoint: CheckpointRef, texts: dict[str, TextRef]
) -> FinetuneReport | None:
    """The finetune step, if the recipe has one."""
    options = session.recipe.finetune
    if options is None:
        return None
    held_out = texts[options.validation.text] if options.validation else None
    return finetune_model(base, checkpoint, texts[options.text], held_out, options, run=session.run)


def _control_arm(
    session: Session,
    model: ModelRef,
    context_tokens: int,
    rows: Calibration,
    texts: dict[str, TextRef],
) -> CheckpointRef | None:
    """The base, healed like a candidate but not converted, if the recipe asks for it."""
    assert session.recipe.evaluate is not None  # convert needs the block
    if not session.recipe.evaluate.control:
        return None
    logger.info("control   the base is trained first, in the same way as the candidate")
    plan = ConversionPlan.unchanged(model.sha256, model.layers, context_tokens)
    unchanged = convert_model(model, plan, rows, run=session.run)
    trained = _heal(session, model, unchanged, texts)
    return trained.checkpoint if trained else unchanged
