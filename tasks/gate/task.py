"""The `gate` node of the DAG: judged anew each time."""

from datetime import UTC, datetime

from layerwright.tasks.context import Context
from layerwright.tasks.contracts.evaluation import EvalReport
from layerwright.tasks.contracts.gate import GateDecision
from layerwright.tasks.orchestration.node import node
from layerwright.tasks.recipe.gate import GatePolicy


@node("gate", cached=False)
def decide(report: EvalReport, policy: GatePolicy, *, ctx: Context) -> GateDecision:
    """Every rule of the policy, with value, limit and margin; fails closed."""
    from layerwright.tasks.contracts.items import read_items
    from layerwright.tasks.gate.policy import decide as judge

    items = read_items(ctx.store.open_tree(report.items.sha256)) if report.items else ()
    return judge(report, items, policy, datetime.now(UTC), ctx.seed)
