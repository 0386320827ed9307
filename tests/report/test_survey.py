"""The survey page: every plan with its figures, best first, against the budget, and as a file."""

import pytest
from facts import missing
from pydantic import ValidationError
from report.example_bundle import digest
from report.example_survey import LAYERS, PLANS, survey_bundle
from report.page_reader import Page, check_form, check_self_contained

from layerwright.tasks.contracts.evaluation import Measurement
from layerwright.tasks.contracts.plan import PlanItem
from layerwright.tasks.report.bundle import SurveyBundle, total_of
from layerwright.tasks.report.formats import number
from layerwright.tasks.report.survey import render_survey
from layerwright.tasks.report.survey_charts import budget_panel, plan_dots
from layerwright.tasks.report.survey_plans import (
    PlanRow,
    along_the_frontier,
    at_equal_budget,
    best_first,
    headline,
    metric_rows,
    plan_rows,
    stability_rows,
)


def changed(given: SurveyBundle, **update: object) -> SurveyBundle:
    fields = {name: getattr(given, name) for name in SurveyBundle.model_fields}
    return SurveyBundle(**(fields | update))


def with_measurements(given: SurveyBundle, keep) -> SurveyBundle:
    plans = {n: tuple(keep(m) for m in ms) for n, ms in given.comparison.plans.items()}
    return changed(given, comparison=given.comparison.model_copy(update={"plans": plans}))


def without_values(given: SurveyBundle) -> SurveyBundle:
    def emptied(m: Measurement) -> Measurement:
        return m.model_copy(update={"value": None, "low": None, "high": None})

    return with_measurements(given, emptied)


def only(given: SurveyBundle, *names: str) -> SurveyBundle:
    return changed(
        given,
        stability=None,
        plans={n: p for n, p in given.plans.items() if n in names},
        comparison=given.comparison.model_copy(
            update={"plans": {n: m for n, m in given.comparison.plans.items() if n in names}}
        ),
    )


CASES = {
    "whole": survey_bundle,
    "one plan": lambda: only(survey_bundle(), "dense"),
    "nothing measured": lambda: without_values(survey_bundle()),
}


@pytest.fixture(params=CASES)
def made(request: pytest.FixtureRequest) -> SurveyBundle:
    return CASES[request.param]()


@pytest.fixture
def rows() -> dict[str, PlanRow]:
    return {row.name: row for row in plan_rows(survey_bundle())}


def metric(name: str):  # type: ignore[no-untyped-def]
    return next(row for row in metric_rows(survey_bundle()) if row.metric == name)


def test_the_page_is_complete_in_itself(made: SurveyBundle) -> None:
    text = render_survey(made)
    check_form(Page(text))
    check_self_contained(text)
    again = SurveyBundle.model_validate_json(made.model_dump_json())
    assert render_survey(again) == text


def test_every_plan_metric_file_and_command_is_there(made: SurveyBundle) -> None:
    page = Page(render_survey(made))
    for name, one in made.plans.items():
        assert name in page.text
        assert one.file in page.text
        assert one.command in page.text
        for m in made.comparison.plans[name]:
            assert m.metric in page.text
            if m.arm == "candidate" and m.low is not None:
                assert f"{number(m.low)} to {number(m.high)}" in page.text
    assert digest("base") in page.text
    strips = [ol for ol in page.all("ol") if "thin" in (ol.get("class") or "")]
    chosen_twice = len(made.stability.plans) if made.stability else 0
    assert len(strips) == len(made.plans) + 2 * chosen_twice


def test_plans_at_equal_budget_are_compared_first(rows: dict[str, PlanRow]) -> None:
    plans = list(rows.values())
    main = headline(metric_rows(survey_bundle()), plans)
    assert main.metric == "perplexity_ratio.test"
    (sentence,) = at_equal_budget(plans, main)
    assert not missing(sentence, "51.6 %", "KV bytes", "by_damage 1.058 (1.051 to 1.065)")
    places = [sentence.index(name) for name in ("by_damage", "laziest", "every_other")]
    assert places == sorted(places)
    assert "not overlap" in sentence
    along = along_the_frontier(plans, main, "kv_bytes_ratio")
    assert not missing(along, "75.8 %", "1.058 (1.051 to 1.065)", "51.6 %")
    assert along.index("75.8 %") < along.index("51.6 %")
    (apart,) = at_equal_budget(plans, metric("perplexity.test"))
    assert "not overlap" in apart
    worse = [rows["laziest"], rows["every_other"]]
    (close,) = at_equal_budget(worse, metric("perplexity.test"))
    assert "overlap" in close
    assert "not overlap" not in close
    page = Page(render_survey(survey_bundle()))
    assert any(p.text == sentence for p in page.passages if p.section == "verdict")


def test_best_first_follows_the_metric(rows: dict[str, PlanRow]) -> None:
    plans = list(rows.values())
    lowest = [p.name for p in best_first(plans, metric("perplexity.test"))]
    assert lowest[0] == "dense"
    assert lowest[-1] == "ruined"
    assert best_first(plans, metric("recall.passkey.600"))[0].name == "dense"
    assert best_first(plans, metric("kv_bytes.1024")) == []


def test_dots_and_whiskers_stand_where_their_figures_are(rows: dict[str, PlanRow]) -> None:
    panel = plan_dots(list(rows.values()), metric("perplexity.test"))
    assert [row.label.split(" ", 1)[1] for row in panel.rows][:2] == ["dense", "by_damage at 0.75"]
    places = [row.dots[0].x for row in panel.rows]
    assert places == sorted(places)
    for row in panel.rows[:-1]:
        assert row.dots[0].low < row.dots[0].x < row.dots[0].high
    assert panel.rows[-1].dots[0].low is None  # what has no interval has no whisker
    assert {row.dots[0].arm for row in panel.rows} == {"candidate", "frontier"}
    assert panel.reference == pytest.approx(panel.rows[0].dots[0].x)  # the base is the dense plan


def test_a_ruined_plan_leaves_room_for_the_others(rows: dict[str, PlanRow]) -> None:
    plans = list(rows.values())
    panel = plan_dots(plans, metric("perplexity.test"))
    assert [row.dots[0].beyond for row in panel.rows] == [""] * 6 + ["→"]
    assert panel.rows[-1].figures == "2,300,000"  # what it is stays to be read
    assert panel.rows[5].dots[0].x - panel.rows[0].dots[0].x > 100
    against = budget_panel(plans, metric("perplexity.test"), "kv_bytes_ratio")
    assert "5 ↑" in against.series[1].tags
    others = [p for p in plans if p.name != "ruined"]
    assert not any(row.dots[0].beyond for row in plan_dots(others, metric("perplexity.test")).rows)
    assert not any(
        row.dots[0].beyond for row in plan_dots(plans, metric("recall.passkey.600")).rows
    )


def test_the_frontier_is_drawn_against_the_budget(rows: dict[str, PlanRow]) -> None:
    panel = budget_panel(list(rows.values()), metric("perplexity.test"), "kv_bytes_ratio")
    frontier, others = panel.series
    assert (frontier.label, frontier.joined, others.joined) == ("frontier", True, False)
    assert frontier.tags == ["7", "6"]  # by budget, named by their numbers in the table
    (cheap, cheap_y, title), (dear, dear_y, _) = frontier.points
    assert cheap < dear
    assert cheap_y < dear_y  # the cheaper one stands higher: its perplexity is worse
    assert not missing(title, "by_damage at 0.5", "51.6 %", "31 (30 to 32)")
    for (x, low, high), (at, y, _) in zip(frontier.whiskers, frontier.points, strict=True):
        assert x == at
        assert high < y < low
    assert len(others.whiskers) == len(others.points) - 1  # one has no interval
    blind = changed(
        survey_bundle(),
        plans={
            name: one.model_copy(
                update={
                    "plan": one.plan.model_copy(
                        update={"items": (PlanItem(start=0, stop=LAYERS, strategy="remove"),)}
                    )
                }
            )
            for name, one in survey_bundle().plans.items()
        },
    )
    assert budget_panel(plan_rows(blind), metric("perplexity.test"), "kv_bytes_ratio") is None
    page = Page(render_survey(blind))
    assert page.says("no plan", "KV bytes", section="budget")
    assert not page.has("figure", "budget")


def test_predictions_are_sums_and_missing_where_an_item_says_none(rows: dict[str, PlanRow]) -> None:
    row = rows["by_damage"]
    page = Page(render_survey(survey_bundle()))
    assert page.says("by_damage", "6 of 12", "+0.06", "+0.12", section="table")
    assert row.kv_ratio == pytest.approx((6 * 255 + 6 * 8192) / (12 * 8192))
    assert rows["by_damage at 0.5"].same_as == "by_damage"
    items = (PlanItem(start=0, stop=2, strategy="linear"), *row.entry.plan.items[2:])
    joined = row.entry.plan.model_copy(update={"items": items})
    assert total_of(joined, "predicted_language_nats") is None


def test_a_strip_joins_neighbours_that_are_alike(rows: dict[str, PlanRow]) -> None:
    strip = rows["by_damage"].strip
    assert [part.width for part in strip] == [3, 6, 3]
    assert strip[1].title == "layers 3 to 8: keep"
    assert strip[2].title == "layers 9 to 11: streaming (sinks 4, window 252)"
    assert {part.look.colour for part in strip} == {"s0", "s1"}


def test_hostile_names_stay_text() -> None:
    hostile = "<script>alert(1)</script>\"'&{{ 7 * 7 }}"
    given = survey_bundle()
    made = changed(
        given,
        plans={hostile: given.plans["dense"].model_copy(update={"command": hostile})},
        comparison=given.comparison.model_copy(
            update={"plans": {hostile: given.comparison.plans["dense"]}}
        ),
        stability=given.stability.model_copy(
            update={
                "plans": {hostile: given.plans["dense"].plan},
                "measured": tuple(
                    one.model_copy(update={"plans": {hostile: one.plans["laziest"]}})
                    for one in given.stability.measured
                ),
            }
        ),
        missing=("choose", "gate"),
    )
    page = Page(render_survey(made))
    assert "script" not in {tag for tag, _ in page.elements}
    assert page.text.count(hostile) > 5
    assert page.says("choose, gate", section="plans")


def test_plans_without_measurements_are_refused() -> None:
    given = survey_bundle()
    with pytest.raises(ValidationError, match="plans"):
        changed(given, plans={"dense": given.plans["dense"]})
    assert set(PLANS) == set(given.plans)


def test_plans_chosen_from_two_texts_stand_side_by_side() -> None:
    given = survey_bundle()
    by_damage, laziest = stability_rows(given)
    assert (by_damage.overlap.same_strategy, by_damage.overlap.jaccard) == (1, 1)
    # 3-8 against every other layer: three layers of nine in both
    assert laziest.overlap.jaccard == 3 / 9
    assert laziest.overlap.same_strategy == 6 / 12
    assert [cell[:3] for cell in laziest.cells] == [
        ("docs-held-out", "docs", True),
        ("docs-held-out", "chats", False),
        ("chats-held-out", "docs", False),
        ("chats-held-out", "chats", True),
    ]
    figures = [cell[3]["perplexity_ratio"].value for cell in laziest.cells]
    assert figures == pytest.approx([1.1, 1.15, 1.2, 1.3])
    page = Page(render_survey(given))
    assert page.says("laziest", "chats", section="stability")
    assert page.says("laziest", "1.15", section="stability")
    assert stability_rows(changed(given, stability=None)) == []
    assert not Page(render_survey(changed(given, stability=None))).has("h2", "stability")
