"""Learning rate and row order are functions of the step alone."""

from itertools import chain, pairwise

import pytest

from tasks.finetune.schedule import learning_rate, row_indices


def test_rate_rises_to_its_peak_and_decays_without_a_wasted_step():
    rates = [learning_rate(n, peak=1.0, warmup_steps=3, steps=10) for n in range(10)]
    assert rates[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert all(later < earlier for earlier, later in pairwise(rates[3:]))
    assert min(rates) > 0


def test_without_warm_up_the_first_step_has_the_peak_rate():
    assert learning_rate(0, peak=0.3, warmup_steps=0, steps=1) == pytest.approx(0.3)


def test_each_pass_reads_every_row_once_in_an_order_of_its_own():
    def order(seed):
        steps = (row_indices(n, rows=6, rows_per_step=4, seed=seed) for n in range(3))
        return list(chain.from_iterable(steps))

    first, second = order(1)[:6], order(1)[6:]
    assert sorted(first) == sorted(second) == list(range(6))
    assert first != second
    assert order(1) == first + second
    assert order(1) != order(2)
