"""The `register` node of the DAG: looks the version up each time, and verifies what it finds."""

from pathlib import Path

from tasks.context import Context
from tasks.contracts import CheckpointRef, ConversionPlan, EvalReport, Registration
from tasks.gate_contracts import GateDecision
from tasks.node import node
from tasks.recipe import RegisterOptions
from tasks.returns import CostAndReturn


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
    from tasks.register.registry import register_model as register

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
