"""Crossover lengths: from the measured ratios, between the lengths where they pass 1."""

import math

import pytest

from layerwright.tasks.contracts.evaluation import Measurement
from layerwright.tasks.contracts.returns import Pair
from layerwright.tasks.contracts.workload import Workload
from layerwright.tasks.returns.money import crossover_tokens, crossovers, times


def measurement(metric: str, arm: str, value: float | None) -> Measurement:
    return Measurement(metric=metric, arm=arm, value=value, unit="", higher_is_better=False)


@pytest.mark.parametrize(
    ("measured", "tokens"),
    [
        ([(1024, 1.2), (4096, 0.8)], 2048),  # half way on a logarithmic axis
        ([(1024, 1.1), (2048, 1.0), (4096, 0.5)], 2048),  # as fast is not faster
        ([(1024, 0.9), (2048, 1.5), (4096, 1.0), (8192, 0.9)], 4096),  # the last time it passes 1
        ([(1024, 0.9), (4096, 0.5)], 1024),  # nothing shorter was measured
        ([(512, 0.9)], 512),
        ([(1024, 0.9), (4096, 1.0)], None),
        ([(512, 1.3)], None),
    ],
)
def test_from_which_length_on_it_is_faster(measured, tokens) -> None:
    found = crossover_tokens(measured)
    assert found == (None if tokens is None else pytest.approx(tokens))


def test_the_line_goes_over_the_logarithm_of_the_length() -> None:
    found = crossover_tokens([(1000, 1.1), (8000, 0.8)])
    assert found == pytest.approx(1000 * 8 ** (1 / 3))
    share = math.log(found / 1000) / math.log(8)
    assert 1.1 + share * (0.8 - 1.1) == pytest.approx(1)


def test_rates_become_times_and_what_one_arm_lacks_is_left_out() -> None:
    found = times(
        [
            measurement("prefill_ms.512", "base", 200.0),
            measurement("prefill_ms.512", "candidate", 100.0),
            measurement("decode_tokens_per_s.512.b4", "base", 20.0),
            measurement("decode_tokens_per_s.512.b4", "candidate", 40.0),
            measurement("latency_p50_ms.512+16", "base", 900.0),
            measurement("latency_p50_ms.512+16", "candidate", None),
            measurement("latency_p95_ms.512+16", "base", 900.0),
            measurement("perplexity.512", "base", 9.0),
            measurement("prefill_ms.docs", "base", 9.0),
            measurement("prefill_ms.64", "base", 9.0),
        ]
    )
    assert found == {
        ("prefill", Workload(512)): Pair(base=0.2, candidate=0.1),
        ("decode", Workload(512, batch=4)): Pair(base=0.05, candidate=0.025),
    }


def test_each_batch_size_has_its_own() -> None:
    figures = {"8192": (100, 80), "512": (10, 12), "512.b4": (40, 30), "2048": (40, 40)}
    found = crossovers(
        measurement(f"prefill_ms.{subject}", arm, float(value))
        for subject, pair in figures.items()
        for arm, value in zip(("base", "candidate"), pair, strict=True)
    )
    by_batch = {one.batch: one for one in found}
    assert [tokens for tokens, _ in by_batch[1].measured] == [512, 2048, 8192]
    assert [ratio for _, ratio in by_batch[1].measured] == pytest.approx([1.2, 1.0, 0.8])
    assert by_batch[1].tokens == pytest.approx(2048)
    assert not by_batch[1].from_the_shortest
    assert by_batch[4].tokens == 512
    assert by_batch[4].from_the_shortest
