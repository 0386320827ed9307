"""Money: from throughput and price, and when a conversion has paid for itself."""

import pytest
from pydantic import ValidationError

from layerwright.tasks.contracts.evaluation import Measurement
from layerwright.tasks.contracts.returns import Price
from layerwright.tasks.recipe.compute import Compute
from layerwright.tasks.returns.money import cost_and_return, workload_costs

PRICE = Price(device_hour=3.6, currency="EUR")  # a thousandth a second


def figures(load: str, base: dict[str, float], candidate: dict[str, float]) -> list[Measurement]:
    prompt, _, batch = load.partition(".")
    suffix = f".{batch}" if batch else ""
    return [
        Measurement(
            metric=f"{family}.{prompt if family == 'latency_p50_ms' else prompt.split('+')[0]}"
            f"{suffix}",
            arm=arm,
            value=value,
            unit="",
            higher_is_better=False,
        )
        for arm, values in (("base", base), ("candidate", candidate))
        for family, value in values.items()
    ]


def speed(prefill_ms: float, rate: float, latency_ms: float) -> dict[str, float]:
    return {
        "prefill_ms": prefill_ms,
        "decode_tokens_per_s": rate,
        "latency_p50_ms": latency_ms,
    }


FOUR_ROWS = figures("1000+24.b4", speed(4000, 8, 16_000), speed(2000, 16, 8_000))


def test_money_per_million_tokens() -> None:
    [cost] = workload_costs(FOUR_ROWS, PRICE)
    assert (cost.prompt_tokens, cost.new_tokens, cost.batch) == (1000, 24, 4)
    # 4 s x 0.001 for 4,000 tokens of prompts
    assert (cost.prefill.base, cost.prefill.candidate) == pytest.approx((1.0, 0.5))
    assert (cost.decode.base, cost.decode.candidate) == pytest.approx((125.0, 62.5))
    assert cost.request.base == pytest.approx(16 * 0.001 / (4 * 1024) * 1e6)
    assert cost.request.saving == pytest.approx(cost.request.base / 2)
    assert cost.break_even_tokens is None, "nothing was said of what the conversion cost"


def test_break_even_pays_the_conversion_exactly() -> None:
    [cost] = workload_costs(FOUR_ROWS, PRICE, conversion=2.0)
    requests = cost.break_even_tokens / (4 * 1024)
    assert requests * PRICE.of(16.0 - 8.0) == pytest.approx(2.0)


def test_a_dearer_candidate_never_pays() -> None:
    slower = figures("1000+24", speed(10, 8, 100), speed(10, 8, 101))
    [cost] = workload_costs(slower, PRICE, conversion=2.0)
    assert cost.request.saving < 0
    assert cost.break_even_tokens is None


@pytest.mark.parametrize("missing", ["prefill_ms", "decode_tokens_per_s", "latency_p50_ms"])
@pytest.mark.parametrize("arm", ["base", "candidate"])
def test_what_was_not_measured_has_no_price(missing: str, arm: str) -> None:
    kept = [m for m in FOUR_ROWS if (m.metric.split(".")[0], m.arm) != (missing, arm)]
    assert len(kept) == len(FOUR_ROWS) - 1
    assert workload_costs(kept, PRICE) == ()


def test_the_conversion_costs_what_its_steps_took_when_they_ran() -> None:
    compute = Compute.model_validate({"steps": {"finetune": {"processes": 4}}})
    found = cost_and_return(
        FOUR_ROWS,
        PRICE,
        "cuda",
        spent={"fetch": 0.1, "profile": 0.2, "convert": 5.0, "finetune": 100.0, "evaluate": 50.0,
               "gate": 9.0, "register": 9.0},
        recorded={"profile": 60.0, "finetune": 90.0},
        cached=("fetch", "profile"),
        compute=compute,
    )  # fmt: skip
    assert found.device_seconds == {
        "fetch": 0.1, "profile": 60.0, "convert": 5.0, "finetune": 400.0, "evaluate": 50.0,
    }  # fmt: skip
    assert found.untimed == ("fetch",), "nothing says how long it took"
    assert found.conversion == pytest.approx(0.001 * (0.1 + 60 + 5 + 400 + 50))
    [cost] = found.workloads
    assert cost.break_even_tokens == pytest.approx(
        found.conversion / cost.request.saving * 1_000_000
    )


@pytest.mark.parametrize(
    "wrong", [{"device_hour": 0}, {"device_hour": -1.0}, {"device_hour": 2, "currency": "euro"}, {}]
)
def test_a_price_is_a_price(wrong: dict) -> None:
    with pytest.raises(ValidationError):
        Price.model_validate(wrong)
