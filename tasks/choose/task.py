"""The `choose` step: give every layer a strategy and a reason."""

from layerwright.tasks.contracts.plan import ConversionPlan
from layerwright.tasks.orchestration.node import Node
from layerwright.tasks.steps import Step

STEP = Step(
    "choose",
    after="measure_costs",
    seconds="layerwright.tasks.choose.estimate.seconds",
    streams=True,
)
choose_plan = Node[ConversionPlan](STEP, "layerwright.tasks.choose.step.choose_on_model")
