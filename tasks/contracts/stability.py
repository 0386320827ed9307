"""The stability of a survey: the overlap of plans that were chosen from two texts."""

from __future__ import annotations

from layerwright.tasks.contracts.base import Contract
from layerwright.tasks.contracts.evaluation import Measurement, PlanComparison
from layerwright.tasks.contracts.plan import ConversionPlan
from layerwright.tasks.contracts.profile import ModelProfile


class PlanOverlap(Contract):
    """How similar two plans are."""

    same_strategy: float  # share of layers that have the same strategy in both
    # layers that both convert, over layers that at least one converts; 1 if neither converts a
    # layer
    jaccard: float


class Stability(Contract):
    """A survey's plans, chosen again from a second text; both choices measured on both domains."""

    texts: tuple[str, str]  # the texts that plans were chosen from: the recipe's, then the second
    # the texts that plans are measured on, one per domain, in the same order
    held_out: tuple[str, str]
    # profile, plans: from the second text
    profile: ModelProfile
    plans: dict[str, ConversionPlan]
    # the plans chosen from the first text, then those chosen from the second
    measured: tuple[PlanComparison, PlanComparison]

    def damage(self, plan: str, chosen_on: str, family: str, measured_on: str) -> Measurement:
        """A plan's damage on the text ``measured_on``, when chosen from the text ``chosen_on``.

        Args:
            family: ``perplexity_ratio`` or ``kl_mean``.
        """
        wanted = f"{family}.{measured_on}"
        of_plan = self.measured[self.texts.index(chosen_on)].plans[plan]
        return next(m for m in of_plan if (m.metric, m.arm) == (wanted, "candidate"))


def overlap(first: ConversionPlan, second: ConversionPlan) -> PlanOverlap:
    """The overlap of two plans for the same layers."""
    pairs = list(zip(first.summary().values(), second.summary().values(), strict=True))
    converted = [(a != "keep", b != "keep") for a, b in pairs]
    either = sum(a or b for a, b in converted)
    return PlanOverlap(
        same_strategy=sum(a == b for a, b in pairs) / len(pairs),
        jaccard=sum(a and b for a, b in converted) / either if either else 1.0,
    )
