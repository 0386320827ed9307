"""A and B with paired statistics: what is told of them, whatever their order."""

import math

import pytest
from gate.evidence import bits, evidence, nats, plain, right
from scipy.stats import binomtest

from layerwright.tasks.contracts.comparison import FigureComparison, SideBySide
from layerwright.tasks.contracts.items import Words
from layerwright.tasks.gate.side_by_side import compare_arms


def compared(a: dict, b: dict, **options) -> SideBySide:
    report, items = evidence(champion=a, candidate=b)
    return compare_arms(report, items, **options)


def figure(found: SideBySide, metric: str) -> FigureComparison:
    return next(f for f in found.figures if f.metric == metric)


def test_right_and_wrong_is_mcnemar_two_sided() -> None:
    a, b = bits(100, 80), bits(100, 60)
    b[90:95] = [True] * 5
    found = figure(compared({"recall.x": a}, {"recall.x": b}), "recall.x")
    assert (found.a, found.b, found.difference) == (0.8, 0.65, pytest.approx(-0.15))
    assert (found.lost, found.won, found.items) == (20, 5, 100)
    assert found.p_value == pytest.approx(binomtest(20, 25, 0.5).pvalue)
    assert found.low < -0.15 < found.high < 0
    assert found.better == "A"


def test_the_order_does_not_matter() -> None:
    one = {"perplexity.x": nats("base"), "recall.x": right("base")}
    other = {"perplexity.x": nats("candidate"), "recall.x": right("candidate")}
    there, back = compared(one, other), compared(other, one)
    for metric in one:
        first, second = figure(there, metric), figure(back, metric)
        assert first.difference == pytest.approx(-second.difference)
        assert first.p_value == pytest.approx(second.p_value, abs=0.01)
        assert {first.better, second.better} in ({"A", "B"}, {"neither"})
    assert figure(there, "perplexity.x").better == "B", "a real pair: lower, by the bootstrap"
    lost = {change.item for change in there.changed if change.loss > 0}
    assert lost == {change.item for change in back.changed if change.loss < 0}


def test_equal_arms_are_told_apart_by_nothing() -> None:
    same = {"recall.x": bits(50, 30), "perplexity.x": [1.0, 2.0, 3.0] * 20}
    found = compared(same, same)
    assert {f.better for f in found.figures} == {"neither"}
    assert (found.changed, found.regressions) == ((), ())


def test_p_values_are_adjusted_over_all_metrics() -> None:
    a, b = bits(20, 12), bits(20, 5)
    alone = figure(compared({"recall.x": a}, {"recall.x": b}), "recall.x").p_value
    equal = {f"recall.{i}": bits(20, 10) for i in range(9)}
    among = figure(compared({"recall.x": a, **equal}, {"recall.x": b, **equal}), "recall.x")
    assert among.p_value == pytest.approx(10 * alone)
    assert (alone < 0.05, among.better) == (True, "neither")


def test_the_worst_items_come_first() -> None:
    a = {"perplexity.x": [1.0, 1.0, 1.0, 1.0], "recall.x": bits(4, 2)}
    b = {"perplexity.x": [1.0, 3.0, 0.0, 2.0], "recall.x": [False, True, True, False]}
    found = compared(a, b, worst=1)
    assert [(c.metric, c.item, c.loss) for c in found.regressions] == [
        ("perplexity.x", "1", 2.0),
        ("recall.x", "0", 1.0),
    ]
    assert [(c.item, c.a, c.b) for c in found.changed] == [("0", 1.0, 0.0), ("2", 0.0, 1.0)]


def test_what_an_arm_wrote_is_shown() -> None:
    report, items = evidence(champion={"recall.x": bits(2, 2)}, candidate={"recall.x": bits(2, 1)})
    written = [
        item.model_copy(update={"words": Words(prompt=item.item, said=f"{item.arm} {item.item}")})
        for item in items
    ]
    (change,) = compare_arms(report, written).changed
    assert (change.prompt, change.text_a, change.text_b) == ("1", "champion 1", "candidate 1")
    (change,) = compare_arms(report, items).changed
    assert (change.text_a, change.text_b) == (None, None)


def test_what_cannot_be_compared_says_why() -> None:
    report, items = evidence(
        champion={"recall.x": [0.5]}, candidate={"recall.x": [0.25], "alone": [1.0, 2.0]}
    )
    report = plain(
        plain(report, "champion", kv__1=4.0, gone=None), "candidate", kv__1=2.0, gone=1.0
    )
    reasons = {f.metric: f.reason for f in compare_arms(report, items).figures}
    assert reasons == {
        "recall.x": "too few items: 1, at least 20 are needed",
        "alone": "not measured in both checkpoints",
        "kv.1": "the metric has no per-item results",
        "gone": "not measured in both checkpoints",
    }
    assert figure(compare_arms(report, items), "kv.1").difference == -2.0


def test_no_infinity_reaches_the_json() -> None:
    huge = [1.0, 700.0, 709.0]
    found = figure(
        compared({"perplexity.x": [1.0] * 3}, {"perplexity.x": huge}, min_items=3), "perplexity.x"
    )
    assert found.high is None or math.isfinite(found.high)
