"""The `gate` node of the DAG: judged anew each time."""

from datetime import UTC, datetime

from tasks.context import Context
from tasks.contracts import EvalReport, GateDecision
from tasks.node import node
from tasks.recipe import GatePolicy


@node("gate", cached=False)
def decide(report: EvalReport, policy: GatePolicy, *, ctx: Context) -> GateDecision:
    """Every rule of the policy, with value, limit and margin; fails closed."""
    from tasks.gate.policy import decide as judge

    return judge(report, policy, datetime.now(UTC))
