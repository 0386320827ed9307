"""The page of a requalification."""

import pytest
from report.example_bundle import bundle, evaluation, gate
from report.page_reader import Page, check_form

from layerwright.tasks.contracts.requalification import Alarm, TrendPoint
from layerwright.tasks.recipe.gate import WatchRule
from layerwright.tasks.report.bundle import RequalificationBundle
from layerwright.tasks.report.requalification import render_requalification, trend_panel, watched

RULE = WatchRule(metric="perplexity.*", against="registered", max_ratio=1.1)
ALARM = Alarm(
    metric="perplexity.wikitext", reference="registered figure", value=33.0, ratio=1.13,
    min_ratio=None, max_ratio=1.1, reason="above 1.1",
)  # fmt: skip


def requalified(*, accepted: bool = True, points: int = 3, **changes) -> RequalificationBundle:
    run, report = bundle(), evaluation()
    metric = next(m.metric for m in report.measurements if m.metric.startswith("perplexity."))
    trend = tuple(
        TrendPoint(
            at=f"2026-11-{20 + i}T03:00:00+00:00",
            run_id=f"nightly-{i}",
            decision="accepted",
            alarms=0,
            values={metric: 30.0 + i},
        )
        for i in range(points)
    )
    fields = {
        "run_id": "nightly-2",
        "recipe_name": "nightly",
        "recipe_yaml": run.recipe_yaml,
        "started_at": run.started_at,
        "finished_at": run.finished_at,
        "registered_name": "smollm2",
        "version": "4",
        "model": run.model,
        "evaluation": report,
        "gate": gate(report, accepted=accepted),
        "watch": (RULE,),
        "alarms": (),
        "trend": trend,
        "environment": run.environment,
    }
    return RequalificationBundle(**(fields | changes))


@pytest.mark.parametrize("accepted", [True, False])
def test_the_page_is_whole(accepted: bool) -> None:
    text = render_requalification(requalified(accepted=accepted))
    page = Page(text)
    check_form(page)
    assert page.says("version 4", "smollm2")
    assert page.says("ACCEPTED", section="verdict") == accepted
    assert page.says("promoted", section="verdict") == (not accepted)
    assert page.says("all figures", "inside their bands", section="verdict")
    assert page.says("perplexity.*", "registered figure", "1.1", section="trend")
    assert page.says("nightly-0", "accepted", section="trend")
    assert "http" not in text.replace("http-equiv", "").replace("http://www.w3.org", "")
    assert text == render_requalification(requalified(accepted=accepted))


def test_alarms_stand_in_the_verdict() -> None:
    page = Page(render_requalification(requalified(alarms=(ALARM,))))
    assert page.says("ACCEPTED", "ALARMS", section="verdict")
    assert page.says("1 figure", "band", section="verdict")
    assert page.says("perplexity.wikitext", "registered figure", "1.13", "above 1.1")


def test_a_trend_needs_two_points() -> None:
    one, three = requalified(points=1), requalified()
    (metric,) = one.trend[0].values
    assert trend_panel(metric, one.trend) is None
    panel = trend_panel(metric, three.trend)
    xs = [x for x, _, _ in panel.series[0].points]
    assert xs == sorted(xs)
    assert panel.help == "30 → 32"


def test_without_a_watch_quality_is_shown() -> None:
    from layerwright.tasks.report.measurements import rows

    quiet = requalified(watch=())
    shown = watched(quiet, rows(quiet.evaluation))
    assert any(name.startswith("perplexity") for name in shown)
    page = Page(render_requalification(quiet))
    assert page.says("no watch rules", section="trend")
    assert not page.has("li", "trend")
