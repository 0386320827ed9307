"""The `gate` step, which is never cached because a decision depends on the date."""

from layerwright.tasks.contracts.gate import GateDecision
from layerwright.tasks.orchestration.node import Node
from layerwright.tasks.steps import Step

STEP = Step("gate", after="evaluate", seconds=0.1, placed=False)
decide = Node[GateDecision](STEP, "layerwright.tasks.gate.policy.decide_now", cached=False)
