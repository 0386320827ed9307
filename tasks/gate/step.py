"""The function of the gate step."""

from __future__ import annotations

from datetime import UTC, datetime

from layerwright.tasks.context import Context
from layerwright.tasks.contracts.evaluation import EvalReport
from layerwright.tasks.contracts.gate import GateDecision
from layerwright.tasks.contracts.items import read_items
from layerwright.tasks.gate.policy import decide
from layerwright.tasks.recipe.gate import GatePolicy


def decide_now(report: EvalReport, policy: GatePolicy, ctx: Context) -> GateDecision:
    """Accept or reject the candidate by the policy, at the current time."""
    items = read_items(ctx.store.open_tree(report.items.sha256)) if report.items else ()
    return decide(report, items, policy, datetime.now(UTC), ctx.seed)
