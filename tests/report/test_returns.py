"""Crossover, money and break-even as the page says them."""

import pytest
from facts import missing
from report.example_bundle import bundle, measurement, speed
from report.page_reader import Page, check_form, check_self_contained
from report.test_page import changed, with_measurements

from layerwright.tasks.contracts.returns import Price
from layerwright.tasks.recipe.compute import Compute
from layerwright.tasks.report.page import render_page
from layerwright.tasks.report.returns import (
    crossover_sentences,
    money,
    money_saved,
    return_sentence,
    rounded,
)
from layerwright.tasks.returns.money import cost_and_return


def cost_of(*measurements, price: float = 3.6):
    return cost_and_return(
        measurements, Price(device_hour=price), "cpu", {"convert": 900.0}, {}, (), Compute()
    )


def test_the_page_says_what_it_costs_and_when_it_is_paid_back() -> None:
    text = render_page(bundle())
    check_form(Page(text))
    check_self_contained(text)
    page = Page(text)
    # 20.319 s against 19.225 s for 8,208 tokens, at 2.5 USD an hour
    money_saved = ("1.63 USD", "1.72 USD", "2.50 USD", "cpu")
    conversion = ("9 min 23 s", "0.39 USD", "4.2 M tokens", "515")
    assert page.says(*money_saved, *conversion, section="returns")
    assert page.says("not included", "fetch", section="returns")
    assert page.says("8,192 + 16", section="returns")
    assert page.says("4.2 M tokens", section="verdict")


def test_without_a_price_no_money() -> None:
    page = Page(render_page(changed(bundle(), cost=None)))
    assert "USD" not in page.text
    assert "paid" not in page.text
    assert not page.has("h2", "returns")
    assert page.has("li", "speed"), "from which length on it is faster"


@pytest.mark.parametrize(
    ("ratios", "facts"),
    [
        ({512: 0.9, 2048: 0.7}, ("is faster", "every measured length", "512 tokens")),
        ({512: 1.2, 2048: 0.8}, ("is faster", "1,000 tokens")),
        ({512: 1.2, 2048: 1.1}, ("is not faster",)),
    ],
)
def test_the_crossover_in_words(ratios, facts) -> None:
    measurements = [
        measurement(f"prefill_ms.{tokens}", arm, 100 * factor, "ms")
        for tokens, ratio in ratios.items()
        for arm, factor in (("base", 1.0), ("candidate", ratio))
    ]
    [sentence] = crossover_sentences(with_measurements(bundle(), *measurements).evaluation)
    assert not missing(sentence, *facts)
    for tokens, ratio in ratios.items():
        assert f"{'2K' if tokens == 2048 else tokens}: {ratio:.2f}" in sentence
    check_form(Page(render_page(with_measurements(bundle(), *measurements))))


def test_several_rows_at_once_have_a_curve_of_their_own() -> None:
    made = [
        m.model_copy(update={"metric": f"{m.metric}.b4"})
        for arm in ("base", "candidate")
        for m in speed(2048, arm, 30.0, 9000.0, 10)
    ]
    given = with_measurements(bundle(), *bundle().evaluation.measurements, *made)
    page = Page(render_page(given))
    titles = [svg["aria-label"] for svg in page.all("svg") if svg.get("aria-label")]
    assert any(not missing(t, "request", "ms", "16 new tokens", "batch 4") for t in titles)
    assert any(not missing(t, "decoding", "tokens/s", "batch 4") for t in titles)
    assert page.says("16 new tokens", "batch 4", "not faster", section="speed")
    assert page.says("decoding", "8K", section="verdict"), "of one request at a time"
    assert not page.says("batch 4", section="verdict")


def test_a_dearer_candidate_is_never_paid_back() -> None:
    cost = cost_of(
        *speed(2048, "base", 10.0, 1000.0, 10), *speed(2048, "candidate", 9.0, 1000.0, 10)
    )
    assert not missing(return_sentence(cost), "never")
    assert "paid" not in money_saved(cost)
    page = Page(render_page(changed(bundle(), cost=cost)))
    assert page.says("prompts", "0 %", "never", section="returns")
    assert page.says("answers", "\N{MINUS SIGN}11.1 %", section="returns")


def test_a_conversion_whose_requests_were_not_timed() -> None:
    cost = cost_of(measurement("prefill_ms.2048", "base", 9.0, "ms"))
    assert not missing(return_sentence(cost), "15 min 0 s", "unknown")
    assert money_saved(cost) == ""
    assert cost.workloads == ()


@pytest.mark.parametrize(
    ("amount", "said"),
    [(0.386, "0.39 USD"), (1234.5, "1,234.50 USD"), (0.00012, "0.00012 USD"), (0.0, "0 USD")],
)
def test_small_sums_keep_their_digits(amount: float, said: str) -> None:
    assert money(amount, "USD") == said


def test_lengths_between_measurements_are_not_too_exact() -> None:
    assert [rounded(n) for n in (1437.2, 963.0, 99_500)] == [1400, 960, 100_000]
