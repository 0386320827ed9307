"""The recipe's `survey` block."""

from typing import Self

from pydantic import Field, model_validator

from layerwright.tasks.contracts.base import Contract, Positive, Share
from layerwright.tasks.contracts.plan import FrontierBudget
from layerwright.tasks.recipe.choose import ChooseOptions
from layerwright.tasks.recipe.component_fields import Metric, Strategy


class StabilityOptions(Contract):
    """A second text from which all plans are chosen again, to see whether they change.

    ``held_out``: two texts on which the plans are measured: one of the domain of the profile's
    text, then one of the domain of ``text``.
    """

    text: str
    held_out: tuple[str, str]
    rows: Positive = 8
    row_tokens: Positive = 512


class SurveyOptions(Contract):
    """Plans to compare without training."""

    plans: dict[str, ChooseOptions] = Field(min_length=1)  # one selector per plan name
    metrics: tuple[Metric, ...] = Field(min_length=1)
    frontier: tuple[Share, ...] = ()  # budgets of ``frontier_plan``, as shares of the base
    frontier_plan: str | None = None
    frontier_budget: FrontierBudget = "kv_bytes_ratio"  # the quantity that ``frontier`` limits
    stability: StabilityOptions | None = None

    @model_validator(mode="after")
    def _frontier_has_a_plan(self) -> Self:
        if self.frontier and self.frontier_plan not in self.plans:
            raise ValueError(f"frontier_plan to be one of {', '.join(self.plans)}")
        return self

    def points(self) -> dict[str, ChooseOptions]:
        """One plan per budget of the frontier, by name: ``frontier_plan`` with that budget.

        Raises:
            InputError: the selector has no such budget.
        """
        if self.frontier_plan is None:
            return {}
        plan = self.plans[self.frontier_plan]
        selectors = {
            share: plan.selector.with_options(**{self.frontier_budget: share})
            for share in self.frontier
        }
        return {
            f"{self.frontier_plan} at {share:g}": plan.model_copy(update={"selector": selector})
            for share, selector in selectors.items()
        }

    def strategies(self) -> tuple[Strategy, ...]:
        """Every strategy that a plan may use, each once."""
        plans = (self.plans | self.points()).values()
        found = {s.spec.model_dump_json(): s for plan in plans for s in plan.strategies}
        return tuple(found.values())
