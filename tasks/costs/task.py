"""The `measure_costs` node of the DAG."""

from tasks.context import Context
from tasks.contracts import ModelRef, Spec
from tasks.cost_contracts import CostTable
from tasks.node import node
from tasks.recipe import CostOptions


@node("measure_costs", timed=True)
def measure_costs(
    model: ModelRef, strategies: tuple[Spec, ...], options: CostOptions, *, ctx: Context
) -> CostTable:
    """Prefill and decode time of one layer of each kind, and of what is outside the layers."""
    from tasks.costs.table import measure_costs as measure

    return measure(model, strategies, options, ctx)
