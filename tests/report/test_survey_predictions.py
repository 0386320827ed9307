"""Predicted against measured: which plans count, and how well their order was foreseen."""

import math

import pytest
from facts import missing
from report.example_survey import survey_bundle
from report.page_reader import Page
from scipy.stats import kendalltau, rankdata

from layerwright.tasks.report.bundle import total_of
from layerwright.tasks.report.survey import render_survey
from layerwright.tasks.report.survey_predictions import prediction_panel, predictions


def test_language_is_the_rise_of_the_nll_and_recall_the_fall_of_the_keys() -> None:
    bundle = survey_bundle()
    found = {(one.part, one.metric): one for one in predictions(bundle)}
    assert {part for part, _ in found} <= {"language", "recall"}
    (one,) = (one for (part, _), one in found.items() if part == "language")
    for plan, predicted, measured in zip(one.plans, one.predicted, one.measured, strict=True):
        assert predicted == total_of(plan.entry.plan, "predicted_language_nats")
        assert measured == pytest.approx(math.log(plan.value(one.metric)))
        assert plan.same_as is None
        assert plan.entry.converted_layers
    # Spearman's rho is Pearson's r of the ranks
    a, b = rankdata(one.predicted), rankdata(one.measured)
    a, b = a - a.mean(), b - b.mean()
    assert one.spearman == pytest.approx((a @ b) / math.sqrt((a @ a) * (b @ b)))
    assert math.copysign(1, one.spearman) == math.copysign(
        1, kendalltau(one.predicted, one.measured).statistic
    )


def test_the_page_shows_every_plan_and_the_correlation() -> None:
    bundle = survey_bundle()
    page = Page(render_survey(bundle))
    for one in predictions(bundle):
        panel = prediction_panel(one)
        assert len(panel.series[0].points) == len(one.plans)
        assert panel.help in page.text
        facts = ("Spearman", f"{one.spearman:.2f}", f"{len(one.plans)} plans")
        assert not missing(panel.help, *facts)
