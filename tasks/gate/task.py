"""The `gate` node of the DAG: judged anew each time."""

from datetime import UTC, datetime

from tasks.context import Context
from tasks.contracts import EvalReport
from tasks.gate_contracts import GateDecision, GatePolicy
from tasks.node import node


@node("gate", cached=False)
def decide(report: EvalReport, policy: GatePolicy, *, ctx: Context) -> GateDecision:
    """Every rule of the policy, with value, limit and margin; fails closed."""
    from tasks.gate.policy import decide as judge
    from tasks.items import read_items

    items = read_items(ctx.store.open_tree(report.items.sha256)) if report.items else ()
    return judge(report, items, policy, datetime.now(UTC), ctx.seed)
