"""The `evaluate` step: measure a converted checkpoint, or plans without a checkpoint."""

from layerwright.tasks.contracts.evaluation import EvalReport, PlanComparison
from layerwright.tasks.orchestration.node import Node
from layerwright.tasks.steps import Step

STEP = Step(
    "evaluate",
    after="finetune",
    seconds="layerwright.tasks.evaluate.estimate.seconds",
    streams=True,
)
evaluate_models = Node[EvalReport](
    STEP, "layerwright.tasks.evaluate.models.evaluate_models", timed=True
)
measure_plans = Node[PlanComparison](
    STEP, "layerwright.tasks.evaluate.plans.measure_plans", timed=True
)
