"""The step: an accepted checkpoint of this run becomes a version of the registry."""

from __future__ import annotations

from pathlib import Path

from layerwright.tasks.context import Context
from layerwright.tasks.contracts.evaluation import EvalReport
from layerwright.tasks.contracts.gate import GateDecision
from layerwright.tasks.contracts.plan import ConversionPlan
from layerwright.tasks.contracts.references import CheckpointRef
from layerwright.tasks.contracts.registration import Registration
from layerwright.tasks.contracts.returns import CostAndReturn
from layerwright.tasks.recipe.registry import RegisterOptions
from layerwright.tasks.register.registry import register_model


def register_candidate(
    candidate: CheckpointRef,
    plan: ConversionPlan,
    report: EvalReport,
    decision: GateDecision,
    options: RegisterOptions,
    tracking_uri: str,
    run_id: str,
    page: str,
    card: str,
    cost: CostAndReturn | None,
    ctx: Context,
) -> Registration:
    """Register a checkpoint with its evidence, without loading the weights (`register_model`).

    Args:
        page, card: paths of the report and the model card.
    """
    return register_model(
        candidate,
        plan,
        report,
        decision,
        options,
        tracking_uri=tracking_uri,
        run_id=run_id,
        page=Path(page),
        card=Path(card),
        cost=cost,
        store=ctx.store,
    )
