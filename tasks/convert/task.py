"""The `convert` node of the DAG."""

from layerwright.tasks.context import Context
from layerwright.tasks.contracts.plan import ConversionPlan
from layerwright.tasks.contracts.references import Calibration, CheckpointRef, ModelRef
from layerwright.tasks.orchestration.node import node


@node("convert")
def convert_model(
    model: ModelRef,
    plan: ConversionPlan,
    calibration: Calibration,
    regularized: ModelRef | None = None,
    *,
    ctx: Context,
) -> CheckpointRef:
    """Plan and base checkpoint -> hybrid checkpoint, tensor by tensor."""
    from layerwright.tasks.convert.checkpoint import convert_model as convert

    return convert(model, plan, calibration, ctx, regularized=regularized)
