import pytest
from choose.problems import (
    choice,
    converted,
    covers,
    impossible,
    problem,
    profile,
    uniform,
)
from facts import says

from layerwright.tasks.choose.base import Problem
from layerwright.tasks.choose.selectors.angular import Angular
from layerwright.tasks.contracts.base import Spec
from layerwright.tasks.contracts.profile import ModelProfile
from layerwright.tasks.errors import InputError

ONES = [0.2, 0.1, 0.3, 0.1, 0.4, 0.3]
PROFILE = profile([0.01] * 6, scores={"angular_distance_1": ONES})
# a run's distance stands on its first layer; the last two begin no run of three
THREES = (0.5, 0.4, 0.2, 0.2)
PROFILE = PROFILE.model_copy(
    update={
        "layers": tuple(
            p.model_copy(update={"scores": p.scores | {"angular_distance_3": THREES[p.layer]}})
            if p.layer < 4
            else p
            for p in PROFILE.layers
        )
    }
)


def with_strategy(of: ModelProfile, spec: Spec) -> Problem:
    return choice(of, uniform(spec, 0, len(of.layers)))


def test_the_run_of_least_distance_and_of_equals_the_lower_one() -> None:
    items = Angular(layers=3).select(problem(PROFILE))
    assert covers(items, 6)
    assert converted(items) == {2, 3, 4}
    assert "layers 2 to 4" in items[2].reason
    assert "0.2000" in items[2].reason
    assert items[0].reason == f"kept: {items[2].reason}"
    assert items[3].predicted_language_nats == 0.01
    assert converted(Angular(layers=1).select(problem(PROFILE))) == {1}


@pytest.mark.parametrize("strategy", ["linear", "remove"])
def test_the_run_may_become_one_thing(strategy: str) -> None:
    of = with_strategy(PROFILE, Spec(name=strategy))
    items = Angular(layers=3, join=True).select(of)
    assert [(i.start, i.stop) for i in items if i.strategy == strategy] == [(2, 5)]
    assert [i.stop for i in items] == [1, 2, 5, 6]
    apart = Angular(layers=3).select(of)
    assert [(i.start, i.stop) for i in apart if i.strategy == strategy] == [(2, 3), (3, 4), (4, 5)]


def test_a_strategy_that_does_not_join_is_refused() -> None:
    with pytest.raises(InputError, match=says("streaming", "layers")) as error:
        Angular(layers=3, join=True).select(problem(PROFILE))
    assert error.value.where == "choose.selector.join"


def test_a_run_holds_no_layer_that_cannot_become_the_strategy() -> None:
    of = impossible(PROFILE, 2)
    assert converted(Angular(layers=3).select(problem(of))) == {3, 4, 5}
    with pytest.raises(InputError, match="every run of 3 layers"):
        Angular(layers=3).select(problem(impossible(PROFILE, 2, 4)))


def test_what_was_not_measured_is_named() -> None:
    with pytest.raises(InputError, match=says("angular distance", "runs of 2")) as error:
        Angular(layers=2).select(problem(PROFILE))
    assert error.value.remedy == "add 2 to the `lengths` of the profiler angular_distance"
    with pytest.raises(InputError, match=says("angular_distance_2", "layer 0")) as error:
        Angular(layers=2).select(problem(profile([0.01] * 6)))
    assert error.value.remedy == "add `- name: angular_distance` to profile.profilers"


def test_more_layers_than_there_are() -> None:
    with pytest.raises(InputError, match="cannot convert 7 layers: 6 of"):
        Angular(layers=7).select(problem(PROFILE))
