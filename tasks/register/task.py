"""The `register` node of the DAG: looks the version up each time, and verifies what it finds."""

from pathlib import Path

from layerwright.tasks.context import Context
from layerwright.tasks.contracts.evaluation import EvalReport
from layerwright.tasks.contracts.gate import GateDecision
from layerwright.tasks.contracts.plan import ConversionPlan
from layerwright.tasks.contracts.references import CheckpointRef
from layerwright.tasks.contracts.registration import Registration
from layerwright.tasks.contracts.returns import CostAndReturn
from layerwright.tasks.orchestration.node import node
from layerwright.tasks.recipe.registry import RegisterOptions


@node("register", cached=False)
def register_model(
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
    *,
    ctx: Context,
) -> Registration:
    """An accepted checkpoint -> a model version with its evidence, without loading the weights."""
    from layerwright.tasks.register.registry import register_model as register

    return register(
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
