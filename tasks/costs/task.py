"""The `measure_costs` step: time a layer of each kind, and the model outside the layers."""

from layerwright.tasks.contracts.costs import CostTable
from layerwright.tasks.orchestration.node import Node
from layerwright.tasks.steps import Step

STEP = Step(
    "measure_costs", after="profile", block="costs", seconds="layerwright.tasks.costs.kinds.seconds"
)
measure_costs = Node[CostTable](STEP, "layerwright.tasks.costs.table.measure_costs", timed=True)
