"""Whether a choice of layers holds on another kind of text."""

from __future__ import annotations

from layerwright.tasks.contracts.base import Contract
from layerwright.tasks.contracts.evaluation import Measurement, PlanComparison
from layerwright.tasks.contracts.plan import ConversionPlan
from layerwright.tasks.contracts.profile import ModelProfile


class PlanOverlap(Contract):
    """How much of one choice is in another.

    ``same_strategy``: share of all layers with the same strategy in both. ``jaccard``: layers that
    both convert over layers that either converts; 1 where neither converts any.
    """

    same_strategy: float
    jaccard: float


class Stability(Contract):
    """Plans of a survey chosen again from a second text, and both choices measured on both domains.

    ``texts``: what the choices were made on, the recipe's own first; ``held_out``: what they are
    measured on, one of each domain in the same order. ``plans`` and ``profile`` are of the second
    text; ``measured`` has the recipe's choices, then the second ones.
    """

    texts: tuple[str, str]
    held_out: tuple[str, str]
    profile: ModelProfile
    plans: dict[str, ConversionPlan]
    measured: tuple[PlanComparison, PlanComparison]

    def damage(self, plan: str, chosen_on: str, family: str, measured_on: str) -> Measurement:
        """A plan's own figure, ``family`` being ``perplexity_ratio`` or ``kl_mean``."""
        wanted = f"{family}.{measured_on}"
        of_plan = self.measured[self.texts.index(chosen_on)].plans[plan]
        return next(m for m in of_plan if (m.metric, m.arm) == (wanted, "candidate"))


def overlap(one: ConversionPlan, other: ConversionPlan) -> PlanOverlap:
    """Of two plans for the same layers."""
    pairs = list(zip(one.summary().values(), other.summary().values(), strict=True))
    converted = [(a != "keep", b != "keep") for a, b in pairs]
    either = sum(a or b for a, b in converted)
    return PlanOverlap(
        same_strategy=sum(a == b for a, b in pairs) / len(pairs),
        jaccard=sum(a and b for a, b in converted) / either if either else 1.0,
    )
