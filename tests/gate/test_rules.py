"""Arms, slices, significance, waivers and items: what each can change, and what fails closed."""

from datetime import UTC, date, datetime, timedelta

import numpy as np
import pytest
from facts import says
from gate.evidence import CHAMPION, NOW, bits, evidence, judge, only, plain
from pydantic import ValidationError

from layerwright.tasks.contracts.evaluation import Champion
from layerwright.tasks.contracts.gate import GateDecision, Waiver
from layerwright.tasks.gate.policy import decide
from layerwright.tasks.recipe.gate import GatePolicy, GateRule

GOOD, POOR = bits(100, 95), bits(100, 60)
LOST = evidence(base={"recall.x": GOOD}, candidate={"recall.x": POOR})
FLOOR = GateRule(metric="recall.x", min=0.9)
WAIVER = Waiver(
    metric="recall.*", author="A. Person", reason="chat only", expires=date(2026, 12, 1)
)


def test_a_rule_may_name_the_champion() -> None:
    given = evidence(
        base={"recall.x": POOR},
        candidate={"recall.x": bits(100, 70)},
        champion={"recall.x": GOOD},
        crowned=CHAMPION,
    )
    against = {"metric": "recall.x", "min": 0.9}
    assert only(given, **against).value == pytest.approx(70 / 60)
    check = only(given, **against, arm="champion")
    assert check.value == pytest.approx(70 / 95)
    assert (check.passed, check.rule) == (False, "ratio to the champion >= 0.9")
    shown = only(given, **against, arm="champion", on="bound")
    assert not shown.inconclusive


def test_the_first_candidate_has_no_champion_to_beat() -> None:
    rule = GateRule(metric="recall.x", min=0.9, arm="champion")
    given = evidence(base={"recall.x": GOOD}, candidate={"recall.x": GOOD})
    decision = judge(given, rule, FLOOR)
    assert decision.accepted
    assert "there is no champion yet" in decision.checks[0].reason
    alone = judge(given, rule)  # and then nothing at all was shown
    assert not alone.accepted
    assert alone.checks[-1].metric == "*"


def test_a_champion_that_could_not_be_measured_fails_its_rules() -> None:
    lost = Champion(version="3", reason="it was made from another base")
    given = evidence(base={"recall.x": GOOD}, candidate={"recall.x": GOOD}, crowned=lost)
    check = only(given, metric="recall.x", min=0.9, arm="champion")
    assert (check.passed, check.reason) == (False, "it was made from another base")
    silent = evidence(
        base={"recall.x": GOOD}, candidate={"recall.x": GOOD}, crowned=Champion(version="3")
    )
    check = only(silent, metric="recall.x", min=0.9, arm="champion")
    assert (check.passed, check.reason) == (False, "the champion was not measured")


def test_a_slice_is_judged_by_itself() -> None:
    slices = ["near"] * 50 + ["far"] * 50
    given = evidence(
        slices=slices,
        base={"recall.x": [True] * 100},
        candidate={"recall.x": [True] * 50 + bits(50, 30)},
    )
    whole = only(given, metric="recall.x", min=0.75)
    far = only(given, metric="recall.x", min=0.75, slice="f*")
    assert (whole.value, far.value, far.items) == (0.8, 0.6, 50)
    assert (whole.passed, far.passed) == (True, False)
    assert far.rule == "ratio to the base, f* >= 0.75"
    assert only(given, metric="recall.x", min=0.75, slice="near", on="bound").passed
    nowhere = only(given, metric="recall.x", min=0.75, slice="nowhere")
    assert (nowhere.passed, nowhere.reason) == (False, "no item is in the slice 'nowhere'")


def test_a_significant_loss_fails_a_rule_on_chance() -> None:
    rule = {"metric": "recall.x", "compare": "p_value", "min": 0.05}
    assert not only(LOST, **rule).passed
    same = only(evidence(base={"recall.x": GOOD}, candidate={"recall.x": GOOD}), **rule)
    assert (same.value, same.passed) == (1, True)
    few = only(evidence(base={"recall.x": GOOD[:9]}, candidate={"recall.x": GOOD[:9]}), **rule)
    assert (few.passed, few.inconclusive, few.value) == (False, True, None)
    assert "too few items: 9, at least 20" in few.reason


def test_a_significant_loss_of_figures_that_are_not_right_or_wrong() -> None:
    rng = np.random.default_rng(0)
    base = rng.random(50)
    rule = {"metric": "rouge.x", "compare": "p_value", "min": 0.05}
    for shift, passed in ((0.0, True), (-0.1, False), (0.1, True)):
        mine = base + shift + rng.normal(0, 0.02, 50)
        assert (
            only(evidence(base={"rouge.x": base}, candidate={"rouge.x": mine}), **rule).passed
            == passed
        )


def test_significance_is_over_the_family() -> None:
    # 8 lost and 1 won: p = 0.0195 by itself
    base = {f"task.{i}": bits(100, 60) for i in range(5)}
    mine = base | {"task.0": [*bits(100, 52)[:99], True]}
    given = evidence(base=base, candidate=mine)
    one = only(given, metric="task.0", compare="p_value", min=0.05)
    assert one.value == pytest.approx(10 / 512)
    assert not one.passed
    many = judge(given, GateRule(metric="task.*", compare="p_value", min=0.05)).checks
    assert many[0].value == pytest.approx(5 * 10 / 512)
    assert all(check.passed for check in many)


def test_a_waiver_forgives_and_the_decision_ends_with_it() -> None:
    other = GateRule(metric="kv", max=0.6)
    report, items = LOST
    given = (plain(plain(report, "base", kv=10.0), "candidate", kv=5.0), items)
    assert not judge(given, FLOOR, other).accepted
    decision = judge(given, FLOOR, other, waivers=(WAIVER,))
    assert decision.accepted
    assert decision.checks[0].waiver == WAIVER
    assert not decision.checks[0].passed
    assert decision.expires_at == "2026-12-01T23:59:59+00:00"
    assert GateDecision.model_validate_json(decision.model_dump_json()) == decision
    late = decide(
        *given, GatePolicy(rules=(FLOOR, other), waivers=(WAIVER,)), NOW + timedelta(days=7)
    )
    assert not late.accepted
    last = datetime(2026, 12, 1, 23, 0, tzinfo=UTC)
    assert decide(*given, GatePolicy(rules=(FLOOR, other), waivers=(WAIVER,)), last).accepted


def test_what_was_not_measured_cannot_be_waived() -> None:
    report, _ = LOST
    blind = (plain(report, "candidate", recall__y=None), ())
    decision = judge(blind, GateRule(metric="recall.y", min=0.9), waivers=(WAIVER,))
    assert not decision.accepted
    assert decision.checks[0].waiver is None


def test_waivers_alone_accept_nothing() -> None:
    decision = judge(LOST, FLOOR, waivers=(WAIVER,))
    assert not decision.accepted
    assert "each one was waived" in decision.checks[-1].reason


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda items: items[:-1], "not measured on the same items"),
        (lambda items: [i for i in items if i.arm == "base"], "has no per-item results"),
        (lambda items: [*items, items[-1]], "several results for one item"),
        (
            lambda items: [*items[:-1], items[-1].model_copy(update={"value": 1.0})],
            "items give 0.61, but the evaluation reports 0.6",
        ),
        (
            lambda items: [*items[:-1], items[-1].model_copy(update={"value": None})],
            "items that could not be measured",
        ),
        (
            lambda items: [*items[:-1], items[-1].model_copy(update={"weight": 0.0})],
            "without a positive weight",
        ),
    ],
)  # fmt: skip
def test_items_that_are_no_evidence_fail(change, reason: str) -> None:
    report, items = LOST
    changed = change(items)
    if reason.startswith("not measured"):  # the last of 100 is wrong: the mean changes with it
        report = evidence(base={"recall.x": GOOD}, candidate={"recall.x": POOR[:-1]})[0]
    check = only((report, changed), metric="recall.x", min=0.1, on="bound")
    assert (check.passed, check.value) == (False, None)
    assert reason in check.reason


def test_a_rule_on_a_value_says_what_its_items_would_show() -> None:
    check = only(LOST, metric="recall.x", min=0.5)
    assert check.passed
    assert check.bound < check.value
    assert (check.items, check.p_value) == (100, None)
    assert 0.05 < check.detectable < 0.3


@pytest.mark.parametrize(
    "wrong",
    [
        {"min": 0.5, "max": 0.6},
        {},
        {"compare": "value", "arm": "champion", "min": 0.5},
        {"compare": "p_value", "max": 0.05},
        {"compare": "p_value", "min": 0.05, "on": "bound"},
        {"compare": "value", "across": "mean", "min": 0.5},
        {"min": 0.5, "arm": "candidate"},
    ],
)
def test_rules_that_mean_nothing_are_refused(wrong: dict) -> None:
    with pytest.raises(ValidationError):
        GateRule(metric="x", **wrong)


def test_a_policy_says_something() -> None:
    with pytest.raises(ValidationError, match=says("tier", "rule")):
        GatePolicy()
