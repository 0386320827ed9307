"""The `evaluate` step: measure a converted checkpoint, or plans without a checkpoint."""

from layerwright.tasks.contracts.evaluation import EvalReport, PlanComparison
from layerwright.tasks.orchestration.node import Node
from layerwright.tasks.steps import Step

HERE = "layerwright.tasks.evaluate"
STEP = Step("evaluate", after="finetune", seconds=f"{HERE}.suite.seconds", streams=True)
evaluate_models = Node[EvalReport](STEP, f"{HERE}.models.evaluate_models", timed=True)
measure_plans = Node[PlanComparison](STEP, f"{HERE}.plans.measure_plans", timed=True)
