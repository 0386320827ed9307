"""The plans of a survey as table rows, and the same plans chosen from a second text."""

from typing import NamedTuple

from layerwright.tasks.contracts.costs import planned_ratio, planned_time
from layerwright.tasks.contracts.evaluation import Measurement
from layerwright.tasks.contracts.survey import PlanOverlap, overlap
from layerwright.tasks.report.bundle import SurveyBundle, SurveyPlan, total_of
from layerwright.tasks.report.formats import MISSING, data_size, number, options, percent, quantity
from layerwright.tasks.report.layers import LayerRun, plan_strip
from layerwright.tasks.report.looks import Look, looks
from layerwright.tasks.report.measurements import Row, rows_of
from layerwright.tasks.report.verdict import plan_sentence

FAMILIES = ("perplexity_ratio", "kl_mean")


class PlanRow(NamedTuple):
    """One plan of a survey. ``number`` identifies it in the charts."""

    number: int
    name: str
    entry: SurveyPlan
    kv_ratio: float | None
    share: float | None  # of the base, of the quantity that the frontier limits
    measured: dict[str, Measurement]
    same_as: str | None  # name of an earlier plan that converts in the same way
    strip: list[LayerRun]

    @property
    def selector(self) -> str:
        return self.entry.plan.selector

    @property
    def layers(self) -> str:
        return f"{self.entry.converted_layers} of {self.entry.plan.layers}"

    @property
    def ratio(self) -> str:
        return percent(self.kv_ratio)

    @property
    def kv_bytes(self) -> str:
        return data_size(total_of(self.entry.plan, "predicted_kv_bytes"))

    @property
    def times(self) -> list[tuple[str, str]]:
        """(share of the base's time, time) for prefill and per new token, both predicted."""
        time, ratio = planned_time(self.entry.plan), planned_ratio(self.entry.plan)
        if time is None or ratio is None:
            return [(MISSING, "")] * 2
        return [
            (percent(ratio.prefill), quantity(time.prefill_seconds * 1e3, "ms")),
            (percent(ratio.decode), quantity(time.decode_seconds_per_token * 1e3, "ms")),
        ]

    @property
    def language(self) -> str:
        return number(total_of(self.entry.plan, "predicted_language_nats"), signed=True)

    @property
    def recall(self) -> str:
        return number(total_of(self.entry.plan, "predicted_recall_nats"), signed=True)

    @property
    def sentence(self) -> str:
        return plan_sentence(self.entry.plan)

    def value(self, metric: str) -> float | None:
        measurement = self.measured.get(metric)
        return measurement.value if measurement else None


def survey_looks(bundle: SurveyBundle) -> dict[str, Look]:
    """The looks of all strategies in the survey, with those chosen from the second text."""
    second = bundle.stability.plans.values() if bundle.stability else ()
    return looks(*(entry.plan for entry in bundle.plans.values()), *second)


def plan_rows(bundle: SurveyBundle) -> list[PlanRow]:
    """All plans in the survey's order; the points of the frontier come last."""
    look = survey_looks(bundle)
    seen: dict[tuple[object, ...], str] = {}
    rows = []
    for index, (name, entry) in enumerate(bundle.plans.items(), 1):
        first = seen.setdefault(_conversion(entry), name)
        measurements = bundle.comparison.plans[name]
        rows.append(
            PlanRow(
                number=index,
                name=name,
                entry=entry,
                kv_ratio=bundle.kv_ratio(name),
                share=bundle.share(name),
                measured={m.metric: m for m in measurements if m.arm == "candidate"},
                same_as=first if first != name else None,
                strip=plan_strip(entry.plan, look),
            )
        )
    return rows


def metric_rows(bundle: SurveyBundle) -> list[Row]:
    """All metrics that at least one plan was measured on, in the recipe's order."""
    measurements = [m for group in bundle.comparison.plans.values() for m in group]
    of_plans = {m.metric for m in measurements if m.arm == "candidate"}
    rows = rows_of(measurements, bundle.comparison.presentation)
    return [row for row in rows if row.metric in of_plans]


def _conversion(entry: SurveyPlan) -> tuple[object, ...]:
    """The conversion of each item of a plan, without reasons and predictions."""
    return tuple(
        (item.start, item.stop, item.strategy, options(item.params))
        for item in entry.plan.items
        if item.strategy != "keep"
    )


class StabilityRow(NamedTuple):
    """One plan of the survey, chosen from both texts.

    ``cells``: (measured on, chosen from, both are of the same domain, measurements by family).
    """

    name: str
    overlap: PlanOverlap
    strips: list[tuple[str, list[LayerRun]]]  # (text, the plan chosen from it)
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
