"""Predicted against measured damage of a survey's plans, with their rank correlation."""

import math
from collections.abc import Callable
from functools import partial
from operator import sub
from typing import Literal, NamedTuple

from scipy.stats import spearmanr

from layerwright.tasks.report.bundle import PredictedFigure, SurveyBundle, total_of
from layerwright.tasks.report.formats import number
from layerwright.tasks.report.lines import BOTTOM, LEFT, RIGHT, TOP, LinePanel, Series
from layerwright.tasks.report.scales import scale_for
from layerwright.tasks.report.survey_plans import PlanRow, plan_rows

Part = Literal["language", "recall"]
FIGURES: dict[Part, PredictedFigure] = {
    "language": "predicted_language_nats",
    "recall": "predicted_recall_nats",
}
MIN_PLANS = 3  # a rank correlation of two plans means nothing


class DamagePrediction(NamedTuple):
    """The predicted and the measured damage of every plan that has both, in nats."""

    part: Part
    metric: str
    plans: list[PlanRow]
    predicted: list[float]
    measured: list[float]
    spearman: float | None  # rank correlation; None if all plans have the same damage


def predictions(bundle: SurveyBundle) -> list[DamagePrediction]:
    """Each kind of damage that was both predicted and measured, over all different plans.

    Language damage is the logarithm of the paired perplexity ratio, which is the increase of the
    NLL. Recall damage is the decrease of the keys' log-probability. Plans that convert nothing are
    left out.
    """
    plans = [p for p in plan_rows(bundle) if p.same_as is None and p.entry.converted_layers]
    measurements = (m for group in bundle.comparison.plans.values() for m in group)
    base = {m.metric: m.value for m in measurements if m.arm == "base"}
    found = []
    for metric in dict.fromkeys(metric for plan in plans for metric in plan.measured):
        family, key = metric.split(".")[0], base.get(metric)
        if family == "perplexity_ratio":
            found.append(_compare("language", metric, plans, lambda v: math.log(v) if v else None))
        elif family == "key_log_prob" and key is not None:
            found.append(_compare("recall", metric, plans, partial(sub, key)))
    return [damage for damage in found if len(damage.plans) >= MIN_PLANS]


def _compare(
    part: Part, metric: str, plans: list[PlanRow], damage: Callable[[float], float | None]
) -> DamagePrediction:
    with_both, predicted, measured = [], [], []
    for plan in plans:
        prediction, value = total_of(plan.entry.plan, FIGURES[part]), plan.value(metric)
        value = None if value is None else damage(value)
        if prediction is not None and value is not None:
            with_both.append(plan)
            predicted.append(prediction)
            measured.append(value)
    varied = len(set(predicted)) > 1 and len(set(measured)) > 1
    rho = float(spearmanr(predicted, measured).statistic) if varied else None
    return DamagePrediction(part, metric, with_both, predicted, measured, rho)


def prediction_panel(damage: DamagePrediction) -> LinePanel:
    """Each plan as a point: predicted damage on the x-axis, measured damage on the y-axis."""
    x = scale_for(damage.predicted, LEFT, RIGHT, log=True)
    y = scale_for(damage.measured, BOTTOM, TOP, log=True)
    points, tags = [], []
    pairs = zip(damage.plans, damage.predicted, damage.measured, strict=True)
    for plan, predicted, measured in pairs:
        figures = f"{number(predicted)} nats predicted, {number(measured)} nats measured"
        points.append((x(predicted), y(measured), f"{plan.number} {plan.name}: {figures}"))
        tags.append(str(plan.number))
    rho = "all equal" if damage.spearman is None else f"Spearman {damage.spearman:.2f}"
    return LinePanel(
        title=f"{damage.part.capitalize()}: {damage.metric}",
        help=f"rank correlation: {rho} over {len(points)} plans; both axes in nats",
        series=[Series("candidate", points, marked=True, joined=False, tags=tags)],
        x_ticks=x.ticks(),
        y_ticks=y.ticks(5),
        description="; ".join(text for _, _, text in points),
        x_name=f"predicted {damage.part} damage",
    )
