"""The `evaluate` nodes of the DAG: a converted checkpoint, or plans without a checkpoint."""

from layerwright.tasks.context import Context
from layerwright.tasks.contracts.base import Spec
from layerwright.tasks.contracts.evaluation import Champion, EvalReport, PlanComparison
from layerwright.tasks.contracts.plan import ConversionPlan
from layerwright.tasks.contracts.references import Calibration, CheckpointRef, ModelRef, TextRef
from layerwright.tasks.orchestration.node import node
from layerwright.tasks.recipe.evaluate import EvaluateOptions


@node("evaluate", timed=True)
def evaluate_models(
    base: ModelRef,
    candidate: CheckpointRef,
    control: CheckpointRef | None,
    champion: Champion | None,
    texts: dict[str, TextRef],
    options: EvaluateOptions,
    *,
    ctx: Context,
) -> EvalReport:
    """Base, candidate, champion and control in one run on the same items."""
    from layerwright.tasks.evaluate.models import evaluate_models as evaluate

    return evaluate(base, candidate, control, champion, texts, options, ctx)


@node("evaluate", timed=True)
def measure_plans(
    base: ModelRef,
    plans: dict[str, ConversionPlan],
    texts: dict[str, TextRef],
    metrics: tuple[Spec, ...],
    calibration: Calibration,
    *,
    ctx: Context,
) -> PlanComparison:
    """Plans side by side on the same tokens, converted in memory, without any training."""
    from layerwright.tasks.evaluate.plans import measure_plans as measure

    return measure(base, plans, texts, metrics, calibration, ctx)
