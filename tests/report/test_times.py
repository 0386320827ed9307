"""Predicted times beside measured ones, on the page of a run and on that of a survey."""

import pytest
from costs.tables import FULL, STREAMED, cost_table
from facts import missing
from report.example_bundle import CONTEXT, bundle
from report.example_survey import LAYERS, survey_bundle
from report.page_reader import Page, check_form, check_self_contained

from layerwright.tasks.report.bundle import ReportBundle, SurveyBundle
from layerwright.tasks.report.page import render_page
from layerwright.tasks.report.savings import adding_up, planned_times, time_rows
from layerwright.tasks.report.survey import render_survey

TABLE = cost_table(30, CONTEXT)
PLANNED = TABLE.at(CONTEXT).of_model([FULL] * 12 + [STREAMED] * 18)


def timed(given: ReportBundle, costs=TABLE) -> ReportBundle:
    return given.model_copy(update={"costs": costs, "predicted_times": {CONTEXT: PLANNED}})


def test_base_and_candidate_stand_beside_their_predictions() -> None:
    rows = {(row.what, row.arm): row for row in time_rows(timed(bundle()))}
    reading, token = dict.fromkeys(what for what, _ in rows)
    assert not missing(reading, "8K tokens")
    assert not missing(token, "new token", "8K tokens")
    assert set(rows) == {(what, arm) for what in (reading, token) for arm in ("base", "candidate")}
    read = rows[reading, "base"]
    assert (read.predicted_ms, read.measured_ms) == (242_000, 17_900)
    written = rows[token, "candidate"]
    assert written.predicted_ms == (1 + 12 * 4 + 18 * 3) * 1e3
    assert written.measured_ms == pytest.approx(1000 / 8.9)
    assert rows[reading, "candidate"].predicted_ms == (2 + 12 * 8 + 18 * 4) * 1e3


def test_rows_that_were_timed_together_are_not_compared_with_one() -> None:
    assert time_rows(timed(bundle(), TABLE.model_copy(update={"batch": 8}))) == []
    assert time_rows(bundle()) == []


def test_the_plan_in_a_sentence_where_its_length_was_timed() -> None:
    said = planned_times(timed(bundle()))
    # (2 + 12 * 8 + 18 * 4) of 242 seconds, (1 + 12 * 4 + 18 * 3) of 121
    assert not missing(said, "70.2 %", "85.1 %")
    assert said.index("70.2 %") < said.index("85.1 %")
    assert planned_times(bundle()) is None
    assert planned_times(timed(bundle(), cost_table(30, 2048))) is None


def test_the_page_says_what_was_timed_where() -> None:
    text = render_page(timed(bundle()))
    check_form(Page(text))
    check_self_contained(text)
    page = Page(text)
    assert not missing(adding_up(TABLE), "0 %", "prefill", "new token", "8K")
    facts = ("a made-up processor", "2 threads", "batch 1", adding_up(TABLE))
    assert page.says(*facts, section="saving")
    assert TABLE.sha256 in page.text
    assert not Page(render_page(bundle())).says("8K tokens", "242 s", section="saving")


def test_a_survey_has_columns_of_time_where_it_was_measured() -> None:
    given = survey_bundle()
    costs = cost_table(LAYERS, CONTEXT)
    at = costs.at(CONTEXT)
    plans = {}
    for name, one in given.plans.items():
        items = tuple(
            item.model_copy(
                update={
                    "predicted_time": at.of_layers([FULL if item.strategy == "keep" else STREAMED])
                }
            )
            for item in one.plan.items
        )
        times = {"base_time": at.of_model([FULL] * LAYERS), "outside_time": at.outside.time}
        plan = one.plan.model_copy(update={"items": items, **times})
        plans[name] = one.model_copy(update={"plan": plan})
    fields = {name: getattr(given, name) for name in SurveyBundle.model_fields}
    text = render_survey(SurveyBundle(**(fields | {"plans": plans, "costs": costs})))
    check_form(Page(text))
    timed = Page(text).says("by_damage", "75.5 %", section="table")
    assert timed, "(1 + 12 * 3) of (1 + 12 * 4) seconds a token"
    untimed = SurveyBundle(**(fields | {"costs": costs}))
    check_form(Page(render_survey(untimed)))
    heads = [page.says("time per token", section="table") for page in
             (Page(text), Page(render_survey(given)))]  # fmt: skip
    assert heads == [True, False]
