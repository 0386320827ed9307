"""The gate's part of the page: bounds, power, inconclusive checks, waivers, the champion."""

from datetime import date

from facts import missing
from report.example_bundle import bundle
from report.page_reader import Page, check_form
from report.test_page import changed

from layerwright.tasks.contracts.evaluation import Champion
from layerwright.tasks.contracts.gate import Check, Waiver
from layerwright.tasks.report.bundle import ReportBundle
from layerwright.tasks.report.gate import rejection, status, waiver_rows
from layerwright.tasks.report.page import render_page
from layerwright.tasks.report.summary import gate_markdown

WAIVER = Waiver(metric="recall.*", author="A. Person", reason="chat only", expires=date(2027, 1, 1))
EXPIRED = WAIVER.model_copy(update={"metric": "kv_bytes.*", "expires": date(2026, 1, 1)})


def recall(**changes: object) -> Check:
    fields = {
        "metric": "recall.passkey.600",
        "rule": "ratio to the base >= 0.95, 95 % bound",
        "compare": "ratio",
        "value": 0.954,
        "bound": 0.861,
        "limit": 0.95,
        "is_floor": True,
        "margin": -0.089,
        "passed": False,
        "severity": "fail",
        "reason": "neither shown nor refuted",
        "p_value": 0.61,
        "items": 240,
        "detectable": 0.043,
        "inconclusive": True,
    }
    return Check(**(fields | changes))


def judged(*checks: Check, accepted: bool = False, **decision: object) -> ReportBundle:
    given = bundle(accepted=accepted)
    gate = given.gate.model_copy(
        update={"checks": (*given.gate.checks, *checks), "tier": "standard", **decision}
    )
    return changed(given, gate=gate)


def test_an_inconclusive_check_shows_its_bound_and_its_power() -> None:
    page = Page(render_page(judged(recall())))
    check_form(page)
    row = ("recall.passkey.600", "Inconclusive", "0.954", "≥ 0.861", "0.95", "240", "0.043")
    assert page.says(*row, section="gate")
    assert page.says("standard", "one-sided", "95 %", section="gate")
    assert page.says("2", "failed", "1", "inconclusive", section="verdict")


def test_waivers_are_shown_used_or_not() -> None:
    waived = recall(waiver=WAIVER)
    made = judged(waived, accepted=True, waivers=(WAIVER, EXPIRED))
    page = Page(render_page(made))
    check_form(page)
    assert page.says("recall.passkey.600", "Waived", "A. Person", "2027-01-01", "chat only")
    assert [row.state for row in waiver_rows(made.gate)] == ["used: recall.passkey.600", "expired"]
    assert page.says("kv_bytes.*", "A. Person", "2026-01-01", "expired", section="gate")
    text = gate_markdown(made.gate)
    (line,) = [line for line in text.splitlines() if "`recall.*`" in line]
    assert not missing(line, "A. Person", "2027-01-01", "recall.passkey.600")
    assert "| Waived | recall.passkey.600 |" in text


def test_a_page_without_waivers_or_bounds_does_not_speak_of_them() -> None:
    page = Page(render_page(bundle()))
    assert not page.says("waivers")
    assert not page.says("one-sided")


def test_outcomes_in_words() -> None:
    assert [status(recall(**c)).word for c in ({}, {"inconclusive": False}, {"passed": True},
            {"severity": "warn"}, {"waiver": WAIVER})] == [
        "Inconclusive", "Failed", "Passed", "Warning", "Waived",
    ]  # fmt: skip
    only = bundle().gate.model_copy(update={"checks": (recall(), recall())})
    assert not missing(rejection(only), "2", "inconclusive")
    assert not missing(rejection(only.model_copy(update={"checks": (recall(),)})), "1")
    assert "failed" not in rejection(only)


def test_the_champion_is_named_and_drawn() -> None:
    given = bundle()
    mine = [m for m in given.evaluation.measurements if m.arm == "candidate"]
    measured = (
        *given.evaluation.measurements,
        *(m.model_copy(update={"arm": "champion"}) for m in mine),
    )
    crowned = Champion(version="3", checkpoint=given.checkpoint)
    report = given.evaluation.model_copy(update={"measurements": measured, "champion": crowned})
    page = Page(render_page(changed(given, evaluation=report)))
    check_form(page)
    assert page.says("champion", "version 3", section="quality")
    assert any("champion" in (p.get("class") or "") for p in page.all("path"))
    lost = Champion(version="3", reason="version 3: the file is gone")
    report = given.evaluation.model_copy(update={"champion": lost})
    page = Page(render_page(changed(given, evaluation=report)))
    assert page.says("version 3: the file is gone", section="quality")
