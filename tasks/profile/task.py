"""The `profile` node of the DAG."""

from tasks.context import Context
from tasks.contracts import ModelProfile, ModelRef, Spec, TextRef
from tasks.node import node
from tasks.recipe import ProfileOptions


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
    from tasks.profile.model import profile_model as profile

    return profile(model, text, options, strategies, ctx)
