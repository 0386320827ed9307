"""The `evaluate` nodes of the DAG: a converted checkpoint, or plans without a checkpoint."""

from tasks.context import Context
from tasks.contracts import (
    Calibration,
    Champion,
    CheckpointRef,
    ConversionPlan,
    EvalReport,
    ModelRef,
    PlanComparison,
    Spec,
    TextRef,
)
from tasks.node import node
from tasks.recipe import EvaluateOptions


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
    from tasks.evaluate.models import evaluate_models as evaluate

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
    from tasks.evaluate.plans import measure_plans as measure

    return measure(base, plans, texts, metrics, calibration, ctx)
