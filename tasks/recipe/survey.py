"""The recipe's `survey` block."""

from __future__ import annotations

from pydantic import Field, model_validator

from layerwright.tasks.contracts.base import Contract, Positive, Share, Spec
from layerwright.tasks.contracts.plan import FrontierBudget
from layerwright.tasks.recipe.choose import ChooseOptions


class StabilityOptions(Contract):
    """A second text to profile and choose from, and what both choices are measured on.

    ``held_out``: a text of the profile's domain, then one of the second's.
    """

    text: str
    held_out: tuple[str, str]
    rows: Positive = 8
    row_tokens: Positive = 512


class SurveyOptions(Contract):
    """Plans to compare without any training: a selector each, by a name of the user's own."""

    plans: dict[str, ChooseOptions] = Field(min_length=1)
    metrics: tuple[Spec, ...] = Field(min_length=1)
    frontier: tuple[Share, ...] = ()  # shares of the base at which `frontier_plan` is re-run
    frontier_plan: str | None = None
    frontier_budget: FrontierBudget = "kv_bytes_ratio"  # what they are shares of
    stability: StabilityOptions | None = None

    @model_validator(mode="after")
    def _frontier_has_a_plan(self) -> SurveyOptions:
        if self.frontier and self.frontier_plan not in self.plans:
            raise ValueError(f"frontier_plan to be one of {', '.join(self.plans)}")
        return self

    def points(self) -> dict[str, ChooseOptions]:
        """One plan per budget of the frontier, by name: its plan's selector at that budget."""
        if self.frontier_plan is None:
            return {}
        wanted = self.plans[self.frontier_plan]
        selector = wanted.selector
        return {
            f"{self.frontier_plan} at {share:g}": wanted.model_copy(
                update={
                    "selector": Spec(
                        name=selector.name, **(selector.options | {self.frontier_budget: share})
                    )
                }
            )
            for share in self.frontier
        }

    def strategies(self) -> tuple[Spec, ...]:
        """Every strategy that a plan may use, each once."""
        plans = (self.plans | self.points()).values()
        specs = {spec.model_dump_json(): spec for plan in plans for spec in plan.strategies}
        return tuple(specs.values())
