"""Predicted damage against measured: whether the order of the plans was foreseen."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from scipy.stats import spearmanr

from layerwright.tasks.contracts.evaluation import Measurement
from layerwright.tasks.report.bundle import PredictedFigure, SurveyBundle, total_of
from layerwright.tasks.report.formats import number
from layerwright.tasks.report.lines import BOTTOM, LEFT, RIGHT, TOP, LinePanel, Series
from layerwright.tasks.report.scales import scale_for
from layerwright.tasks.report.survey_plans import PlanRow, plan_rows

FEWEST = 3  # plans; the order of two says nothing


@dataclass(frozen=True)
class Foreseen:
    """A predicted figure beside the measured one, in nats, of every plan that has both.

    ``spearman`` is the rank correlation; None where all plans have the same figure.
    """

    part: str  # "language", "recall"
    metric: str  # what was measured
    plans: list[PlanRow]
    predicted: list[float]
    measured: list[float]
    spearman: float | None


def foreseen(bundle: SurveyBundle) -> list[Foreseen]:
    """Every kind of damage that was both predicted and measured, over plans that differ.

    Language: ln of the paired perplexity ratio, which is the rise of the NLL. Recall: the base's
    log-probability of the keys less the plan's. Plans that convert nothing are left out.
    """
    plans = [p for p in plan_rows(bundle) if p.same_as is None and p.made.converted_layers]
    base = {
        m.metric: m
        for measurements in bundle.comparison.plans.values()
        for m in measurements
        if m.arm == "base"
    }
    metrics = dict.fromkeys(metric for plan in plans for metric in plan.measured)
    found = []
    for metric in metrics:
        family = metric.split(".")[0]
        if family == "perplexity_ratio":
            one = _compared("language", metric, "predicted_language_nats", plans, _log)
        elif family == "key_log_prob" and (whole := base.get(metric)) and whole.value is not None:
            one = _compared("recall", metric, "predicted_recall_nats", plans, _fall(whole.value))
        else:
            continue
        if len(one.plans) >= FEWEST:
            found.append(one)
    return found


def _log(measured: Measurement) -> float | None:
    return math.log(measured.value) if measured.value else None


def _fall(base: float) -> Callable[[Measurement], float | None]:
    return lambda measured: None if measured.value is None else base - measured.value


def _compared(
    part: str,
    metric: str,
    figure: PredictedFigure,
    plans: list[PlanRow],
    read: Callable[[Measurement], float | None],
) -> Foreseen:
    some, predicted, measured = [], [], []
    for plan in plans:
        foreseen_, found = total_of(plan.made.plan, figure), plan.measured.get(metric)
        value = read(found) if found else None
        if foreseen_ is not None and value is not None:
            some.append(plan)
            predicted.append(foreseen_)
            measured.append(value)
    varied = len(set(predicted)) > 1 and len(set(measured)) > 1
    rho = float(spearmanr(predicted, measured).statistic) if varied else None
    return Foreseen(part, metric, some, predicted, measured, rho)


def prediction_panel(one: Foreseen) -> LinePanel:
    """Each plan as a point: predicted to the right, measured upwards."""
    x = scale_for(one.predicted, LEFT, RIGHT, log=True)
    y = scale_for(one.measured, BOTTOM, TOP, log=True)
    points, tags = [], []
    for plan, predicted, measured in zip(one.plans, one.predicted, one.measured, strict=True):
        said = f"{plan.number} {plan.name}: {number(predicted)} predicted, {number(measured)} nats"
        points.append((x(predicted), y(measured), said))
        tags.append(str(plan.number))
    rho = "no order" if one.spearman is None else f"Spearman {one.spearman:.2f}"
    return LinePanel(
        title=f"{one.part.capitalize()}: {one.metric}",
        help=f"{rho} over {len(points)} plans; both axes in nats",
        series=[Series("candidate", points, marked=True, joined=False, tags=tags)],
        x_ticks=x.ticks(),
        y_ticks=y.ticks(5),
        description="; ".join(said for _, _, said in points),
        x_name=f"predicted {one.part} damage",
    )
