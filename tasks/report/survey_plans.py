"""The plans of a survey as rows: what each became, what was predicted, what was measured."""

from __future__ import annotations

from dataclasses import dataclass

from layerwright.tasks.contracts.costs import planned_ratio, planned_time
from layerwright.tasks.contracts.evaluation import Measurement
from layerwright.tasks.report.bundle import SurveyBundle, SurveyPlan, total_of
from layerwright.tasks.report.formats import MISSING, data_size, number, options, percent, quantity
from layerwright.tasks.report.layers import Stretch, plan_strip
from layerwright.tasks.report.looks import Look, looks
from layerwright.tasks.report.measurements import Row, rows_of
from layerwright.tasks.report.verdict import plan_sentence


@dataclass(frozen=True)
class PlanRow:
    """One plan. ``number`` is its name in the plots; ``same_as`` names an earlier equal plan.

    ``share``: of the base, of what the survey's frontier is about. ``measured``: the plan's own
    figures by metric.
    """

    number: int
    name: str
    made: SurveyPlan
    kv_ratio: float | None
    share: float | None
    measured: dict[str, Measurement]
    same_as: str | None
    strip: list[Stretch]

    @property
    def selector(self) -> str:
        return self.made.plan.selector

    @property
    def layers(self) -> str:
        return f"{self.made.converted_layers} of {self.made.plan.layers}"

    @property
    def ratio(self) -> str:
        return MISSING if self.kv_ratio is None else percent(self.kv_ratio)

    @property
    def kv_bytes(self) -> str:
        return data_size(total_of(self.made.plan, "predicted_kv_bytes"))

    @property
    def times(self) -> list[tuple[str, str]]:
        """Predicted shares of the base's time with the times: to read the context, and a token."""
        time, ratio = planned_time(self.made.plan), planned_ratio(self.made.plan)
        if time is None or ratio is None:
            return [(MISSING, "")] * 2
        return [
            (percent(ratio.prefill), quantity(time.prefill_seconds * 1e3, "ms")),
            (percent(ratio.decode), quantity(time.decode_seconds_per_token * 1e3, "ms")),
        ]

    @property
    def language(self) -> str:
        return number(total_of(self.made.plan, "predicted_language_nats"), signed=True)

    @property
    def recall(self) -> str:
        return number(total_of(self.made.plan, "predicted_recall_nats"), signed=True)

    @property
    def sentence(self) -> str:
        return plan_sentence(self.made.plan)

    def value(self, metric: str) -> float | None:
        found = self.measured.get(metric)
        return found.value if found else None


def survey_looks(bundle: SurveyBundle) -> dict[str, Look]:
    """A look for each strategy of the survey's plans, those chosen from a second text included."""
    second = bundle.stability.plans.values() if bundle.stability else ()
    return looks(*(one.plan for one in bundle.plans.values()), *second)


def plan_rows(bundle: SurveyBundle) -> list[PlanRow]:
    """Every plan, in the survey's order, the points of the frontier last."""
    look = survey_looks(bundle)
    seen: dict[tuple[object, ...], str] = {}
    made = []
    for number_, (name, one) in enumerate(bundle.plans.items(), 1):
        first = seen.setdefault(_conversion(one), name)
        measurements = bundle.comparison.plans[name]
        made.append(
            PlanRow(
                number=number_,
                name=name,
                made=one,
                kv_ratio=bundle.kv_ratio(name),
                share=bundle.share(name),
                measured={m.metric: m for m in measurements if m.arm == "candidate"},
                same_as=first if first != name else None,
                strip=plan_strip(one.plan, look),
            )
        )
    return made


def metric_rows(bundle: SurveyBundle) -> list[Row]:
    """Every metric that some plan has a figure of, in the order of the recipe's metrics."""
    every = [m for measurements in bundle.comparison.plans.values() for m in measurements]
    of_plans = {m.metric for m in every if m.arm == "candidate"}
    return [row for row in rows_of(every, bundle.comparison.presentation) if row.metric in of_plans]


def _conversion(one: SurveyPlan) -> tuple[object, ...]:
    """What a plan does to the base, without reasons and predictions."""
    return tuple(
        (item.start, item.stop, item.strategy, options(item.params))
        for item in one.plan.items
        if item.strategy != "keep"
    )
