"""The `profile` node of the DAG."""

from layerwright.tasks.context import Context
from layerwright.tasks.contracts.base import Spec
from layerwright.tasks.contracts.profile import ModelProfile
from layerwright.tasks.contracts.references import ModelRef, TextRef
from layerwright.tasks.orchestration.node import node
from layerwright.tasks.recipe.profile import ProfileOptions


@node("profile")
def profile_model(
    model: ModelRef,
    text: TextRef,
    options: ProfileOptions,
    strategies: tuple[Spec, ...],
    *,
    ctx: Context,
) -> ModelProfile:
    """Measure every layer: scores in one pass, then the damage of each strategy."""
    from layerwright.tasks.profile.model import profile_model as profile

    return profile(model, text, options, strategies, ctx)
