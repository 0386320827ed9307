"""The `choose` node of the DAG."""

from tasks.context import Context
from tasks.contracts import Calibration, ConversionPlan, ModelProfile, ModelRef
from tasks.cost_contracts import CostTable
from tasks.node import node
from tasks.recipe import ChooseOptions


@node("choose")
def choose_plan(
    model: ModelRef,
    profile: ModelProfile,
    measured_on: Calibration,
    fitted_on: Calibration,
    options: ChooseOptions,
    costs: CostTable | None,
    *,
    ctx: Context,
) -> ConversionPlan:
    """Which layer becomes what, and why."""
    from tasks.choose.step import choose_on_model as choose

    return choose(model, profile, measured_on, fitted_on, options, costs, ctx)
