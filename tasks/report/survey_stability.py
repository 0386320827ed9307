"""Plans chosen from two texts: their overlap, and their damage on both domains."""

from __future__ import annotations

from dataclasses import dataclass

from layerwright.tasks.contracts.evaluation import Measurement
from layerwright.tasks.contracts.survey import PlanOverlap, overlap
from layerwright.tasks.report.bundle import SurveyBundle
from layerwright.tasks.report.layers import LayerRun, plan_strip
from layerwright.tasks.report.survey_plans import survey_looks

FAMILIES = ("perplexity_ratio", "kl_mean")


@dataclass(frozen=True)
class StabilityRow:
    """One plan of the survey, chosen from both texts.

    Attributes:
        strips: (text, the plan chosen from it).
        cells: (measured on, chosen from, both are of the same domain, measurements by family).
    """

    name: str
    overlap: PlanOverlap
    strips: list[tuple[str, list[LayerRun]]]
    cells: list[tuple[str, str, bool, dict[str, Measurement]]]


def stability_rows(bundle: SurveyBundle) -> list[StabilityRow]:
    """One row per plan; empty if the recipe does not ask for stability."""
    stability = bundle.stability
    if stability is None:
        return []
    look = survey_looks(bundle)
    rows = []
    for name, second in stability.plans.items():
        first = bundle.plans[name].plan
        cells = [
            (
                held_out,
                text,
                domain == choice,
                {family: stability.damage(name, text, family, held_out) for family in FAMILIES},
            )
            for domain, held_out in enumerate(stability.held_out)
            for choice, text in enumerate(stability.texts)
        ]
        both = zip(stability.texts, (first, second), strict=True)
        strips = [(text, plan_strip(plan, look)) for text, plan in both]
        rows.append(StabilityRow(name, overlap(first, second), strips, cells))
    return rows
