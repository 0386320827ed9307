"""Call the training steps of a conversion that the recipe asks for."""

from __future__ import annotations

import logging

from layerwright.flows.session.session import Session
from layerwright.tasks.contracts.plan import ConversionPlan
from layerwright.tasks.contracts.references import Calibration, CheckpointRef, ModelRef, TextRef
from layerwright.tasks.contracts.training import FinetuneReport, RegularizationReport
from layerwright.tasks.convert.task import convert_model
from layerwright.tasks.finetune.task import finetune_model, regularize_model

logger = logging.getLogger("layerwright")


def regularize(
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


def heal(
    session: Session, base: ModelRef, checkpoint: CheckpointRef, texts: dict[str, TextRef]
) -> FinetuneReport | None:
    """The finetune step, if the recipe has one."""
    options = session.recipe.finetune
    if options is None:
        return None
    held_out = texts[options.validation.text] if options.validation else None
    return finetune_model(base, checkpoint, texts[options.text], held_out, options, run=session.run)


def control_arm(
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
    trained = heal(session, model, unchanged, texts)
    return trained.checkpoint if trained else unchanged
