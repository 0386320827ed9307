"""The `choose` node of the DAG."""

from tasks.context import Context
from tasks.contracts import ConversionPlan, ModelProfile
from tasks.node import node
from tasks.recipe import ChooseOptions


@node("choose")
def choose_plan(profile: ModelProfile, options: ChooseOptions, *, ctx: Context) -> ConversionPlan:
    """Which layer becomes what, and why."""
    from tasks.choose.plan import choose_plan as choose

    return choose(profile, options, ctx.seed)
