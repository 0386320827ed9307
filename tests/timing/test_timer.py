"""Interleaving, warm-up and medians."""

import pytest

from layerwright.tasks.timing.speed import Timing, interleaved


def test_arms_take_turns_and_none_always_goes_first() -> None:
    calls: list[str] = []
    arms = {name: (lambda name=name: calls.append(name)) for name in "abc"}
    timings = interleaved(arms, repeats=2, warmup=1)
    assert "".join(calls) == "abc" + "bca" + "cab"
    assert [len(timing.samples_ms) for timing in timings.values()] == [2, 2, 2]


def test_median_is_not_moved_by_one_slow_sample() -> None:
    timing = Timing((5.0, 1.0, 900.0, 2.0, 3.0))
    assert (timing.low_ms, timing.median_ms, timing.high_ms) == (1.0, 3.0, 900.0)


def test_no_repeat_is_refused() -> None:
    with pytest.raises(ValueError, match="repeats must be at least 1"):
        interleaved({"a": int}, repeats=0)
