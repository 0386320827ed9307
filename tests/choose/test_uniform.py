import itertools

import pytest
from choose.problems import converted, covers, impossible, problem, profile

from layerwright.tasks.choose.selectors.uniform import Uniform
from layerwright.tasks.errors import InputError

PROFILE = profile([0.01] * 30)


def test_half_of_the_layers_are_every_other_one() -> None:
    even = Uniform(layers=15).select(problem(PROFILE))
    assert covers(even, 30)
    assert converted(even) == set(range(0, 30, 2))
    assert converted(Uniform(layers=15, offset=1).select(problem(PROFILE))) == set(range(1, 30, 2))
    assert "saves 12.5 MB at 8,192 tokens" in even[0].reason
    assert even[1].reason.startswith("not one of 15")


@pytest.mark.parametrize("count", range(31))
@pytest.mark.parametrize("offset", [0, 3, 31])
def test_as_many_as_asked_for_and_gaps_differ_by_one_layer_at_most(count: int, offset: int) -> None:
    chosen = sorted(converted(Uniform(layers=count, offset=offset).select(problem(PROFILE))))
    assert len(chosen) == count
    if count > 1:
        around = [*chosen, chosen[0] + 30]  # the last layer's neighbour is the first
        gaps = {b - a for a, b in itertools.pairwise(around)}
        assert max(gaps) - min(gaps) <= 1


def test_impossible_layers_are_passed_over() -> None:
    items = Uniform(layers=3).select(problem(impossible(profile([0.01] * 7), 0)))
    assert converted(items) == {1, 3, 5}
    assert items[0].reason.startswith("cannot become streaming")
    with pytest.raises(InputError, match="cannot convert 7 layers: 6 of"):
        Uniform(layers=7).select(problem(impossible(profile([0.01] * 7), 0)))
