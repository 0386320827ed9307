"""Plans chosen from two texts, side by side: how alike they are, and what each costs elsewhere."""

from __future__ import annotations

from dataclasses import dataclass

from layerwright.tasks.contracts.evaluation import Measurement
from layerwright.tasks.contracts.stability import PlanOverlap, overlap
from layerwright.tasks.report.bundle import SurveyBundle
from layerwright.tasks.report.layers import Stretch, plan_strip
from layerwright.tasks.report.survey_plans import survey_looks

FAMILIES = ("perplexity_ratio", "kl_mean")


@dataclass(frozen=True)
class StabilityRow:
    """One plan of the survey. ``cells``: by text measured on, then by text chosen from.

    Attributes:
        strips: the layers, as chosen from each text.
        cells: ``(measured on, chosen from, is its own domain, figures by family)``.
    """

    name: str
    overlap: PlanOverlap
    strips: list[tuple[str, list[Stretch]]]
    cells: list[tuple[str, str, bool, dict[str, Measurement]]]


def stability_rows(bundle: SurveyBundle) -> list[StabilityRow]:
    """A row for each plan that was chosen twice; none where the survey did not ask for it."""
    found = bundle.stability
    if found is None:
        return []
    look = survey_looks(bundle)
    rows = []
    for name, second in found.plans.items():
        first = bundle.plans[name].plan
        cells = [
            (
                held_out,
                text,
                domain == choice,
                {family: found.damage(name, text, family, held_out) for family in FAMILIES},
            )
            for domain, held_out in enumerate(found.held_out)
            for choice, text in enumerate(found.texts)
        ]
        both = zip(found.texts, (first, second), strict=True)
        strips = [(text, plan_strip(plan, look)) for text, plan in both]
        rows.append(StabilityRow(name, overlap(first, second), strips, cells))
    return rows
