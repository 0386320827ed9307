"""The `choose` node of the DAG."""

from layerwright.tasks.context import Context
from layerwright.tasks.contracts.costs import CostTable
from layerwright.tasks.contracts.plan import ConversionPlan
from layerwright.tasks.contracts.profile import ModelProfile
from layerwright.tasks.contracts.references import Calibration, ModelRef
from layerwright.tasks.orchestration.node import node
from layerwright.tasks.recipe.choose import ChooseOptions


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
    from layerwright.tasks.choose.step import choose_on_model as choose

    return choose(model, profile, measured_on, fitted_on, options, costs, ctx)
