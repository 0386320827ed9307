"""The `measure_costs` node of the DAG."""

from layerwright.tasks.context import Context
from layerwright.tasks.contracts.base import Spec
from layerwright.tasks.contracts.costs import CostTable
from layerwright.tasks.contracts.references import ModelRef
from layerwright.tasks.orchestration.node import node
from layerwright.tasks.recipe.costs import CostOptions


@node("measure_costs", timed=True)
def measure_costs(
    model: ModelRef, strategies: tuple[Spec, ...], options: CostOptions, *, ctx: Context
) -> CostTable:
    """Prefill and decode time of one layer of each kind, and of what is outside the layers."""
    from layerwright.tasks.costs.table import measure_costs as measure

    return measure(model, strategies, options, ctx)
