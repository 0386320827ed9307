"""Learning rate and row order are functions of the step alone."""

from itertools import chain, pairwise

import pytest

from layerwright.tasks.finetune.schedule import row_indices, share_of_peak, windows_off
from layerwright.tasks.recipe.training import WindowDropout


def test_rate_rises_to_its_peak_and_decays_without_a_wasted_step():
    rates = [share_of_peak(n, warmup_steps=3, steps=10) for n in range(10)]
    assert rates[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert all(later < earlier for earlier, later in pairwise(rates[3:]))
    assert min(rates) > 0


def test_other_schedules_have_the_same_warm_up():
    def rates(schedule):
        plan = {"warmup_steps": 2, "steps": 6, "schedule": schedule}
        return [share_of_peak(n, **plan) for n in range(6)]

    assert rates("constant") == pytest.approx([1 / 3, 2 / 3, 1, 1, 1, 1])
    assert rates("linear") == pytest.approx([1 / 3, 2 / 3, 1, 0.75, 0.5, 0.25])


def test_without_warm_up_the_first_step_has_the_peak_rate():
    assert share_of_peak(0, warmup_steps=0, steps=1) == 1.0


def test_each_pass_reads_every_row_once_in_an_order_of_its_own():
    def order(seed):
        steps = (row_indices(4 * n, 4, rows=6, seed=seed) for n in range(3))
        return list(chain.from_iterable(steps))

    first, second = order(1)[:6], order(1)[6:]
    assert sorted(first) == sorted(second) == list(range(6))
    assert first != second
    assert order(1) == first + second
    assert order(1) != order(2)


def test_windows_are_dropped_by_a_share_that_moves():
    dropout = WindowDropout(start=1.0, end=0.0)

    def off(step, seed=1):
        return windows_off(dropout, step, first=200 * step, count=200, steps=5, seed=seed)

    shares = [sum(off(step)) / 200 for step in range(5)]
    assert (shares[0], shares[4]) == (1.0, 0.0)
    assert shares[1:4] == pytest.approx([0.75, 0.5, 0.25], abs=0.1)
    assert off(2) == off(2) != off(2, seed=2)
