"""The `convert` node of the DAG."""

from tasks.context import Context
from tasks.contracts import Calibration, CheckpointRef, ConversionPlan, ModelRef
from tasks.node import node


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
    from tasks.convert.checkpoint import convert_model as convert

    return convert(model, plan, calibration, ctx, regularized=regularized)
