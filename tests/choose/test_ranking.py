"""What all rules that order the layers have in common, and each rule's own order."""

import pytest
from choose.problems import (
    BYTES_PER_TOKEN,
    FULL,
    NLL_RISES,
    converted,
    covers,
    impossible,
    problem,
    profile,
)
from facts import says
from pydantic import ValidationError

from layerwright.tasks.choose.ranking import Ranking
from layerwright.tasks.choose.selectors.lightransfer import LightTransfer
from layerwright.tasks.choose.selectors.linearity import MostLinear
from layerwright.tasks.choose.selectors.nll_delta import NllDelta
from layerwright.tasks.choose.selectors.random import Random
from layerwright.tasks.choose.selectors.shortgpt import ShortGpt
from layerwright.tasks.choose.selectors.trsp import Trsp
from layerwright.tasks.errors import InputError

FIGURES = [0.3, 0.1, 0.2, 0.1, 0.5, 0.4]
SCORED = {
    LightTransfer: ("lazy_ratio", "laziness"),
    ShortGpt: ("block_influence", "block_influence"),
    MostLinear: ("linearity", "linearity"),
    Trsp: ("trsp_order", "trsp_scale"),
}
HIGHEST_FIRST = (LightTransfer, MostLinear)
SCORES = {score: FIGURES for score, _ in SCORED.values()} | {"trsp_scale": FIGURES}
PROFILE = profile([0.01] * 6, scores=SCORES)


@pytest.mark.parametrize("rule", SCORED)
def test_layers_are_taken_in_order_and_ties_go_to_the_lower_layer(rule: type[Ranking]) -> None:
    order = [4, 5, 0, 2, 1, 3] if rule in HIGHEST_FIRST else [1, 3, 2, 0, 5, 4]
    for count in range(7):
        items = rule(layers=count).select(problem(PROFILE))
        assert covers(items, 6)
        assert converted(items) == set(order[:count])


@pytest.mark.parametrize("rule", SCORED)
def test_a_missing_score_names_the_profiler(rule: type[Ranking]) -> None:
    score, profiler = SCORED[rule]
    without = {name: figures for name, figures in SCORES.items() if name != score}
    with pytest.raises(InputError, match=says(score, "layer 0")) as error:
        rule(layers=1).select(problem(profile([0.01] * 6, scores=without)))
    assert error.value.remedy == f"add `- name: {profiler}` to profile.profilers"


def test_a_missing_damage_names_sensitivity() -> None:
    nothing = impossible(PROFILE, *range(6))
    with pytest.raises(InputError, match=says("damage", "layer 0", "streaming")) as error:
        NllDelta(layers=1).select(problem(nothing))
    assert "sensitivity" in error.value.remedy


@pytest.mark.parametrize("rule", [*SCORED, NllDelta, Random])
def test_a_layer_that_cannot_become_the_strategy_is_passed_over(rule: type[Ranking]) -> None:
    of = problem(impossible(PROFILE, 1, 4))
    items = rule(layers=4).select(of)
    assert covers(items, 6)
    assert converted(items) == {0, 2, 3, 5}
    assert items[4].reason == "cannot become streaming (sinks 4, window 64)"
    with pytest.raises(InputError, match="cannot convert 5 layers: 4 of the model's 6") as error:
        rule(layers=5).select(of)
    assert error.value.expected == "at most 4"


@pytest.mark.parametrize("rule", [*SCORED, NllDelta, Random])
def test_a_budget_is_met_with_the_first_layers_of_the_same_order(rule: type[Ranking]) -> None:
    of = problem(PROFILE)
    by_bytes = rule(kv_bytes_ratio=0.505).select(of)
    assert by_bytes == rule(layers=3).select(of)
    assert sum(i.predicted_kv_bytes for i in by_bytes) == 3 * (FULL + 67 * BYTES_PER_TOKEN)


@pytest.mark.parametrize("rule", [*SCORED, NllDelta, Random])
def test_a_budget_out_of_reach_names_the_best(rule: type[Ranking]) -> None:
    # two of six layers must stay: (2 + 4 * 67 / 8192) / 6
    with pytest.raises(InputError, match=r"it is 0\.3388 with all 4"):
        rule(kv_bytes_ratio=0.3).select(problem(impossible(PROFILE, 1, 4)))


@pytest.mark.parametrize("rule", [*SCORED, NllDelta, Random])
@pytest.mark.parametrize("options", [{}, {"layers": 1, "kv_bytes_ratio": 0.5}, {"layers": -1}])
def test_exactly_one_of_layers_and_ratio(rule: type[Ranking], options: dict) -> None:
    with pytest.raises(ValidationError):
        rule(**options)


def test_nll_delta_takes_the_smallest_rise_with_its_sign() -> None:
    items = NllDelta(layers=5).select(problem(profile(NLL_RISES)))
    assert converted(items) == {13, 16, 25, 26, 27}
    assert items[27].reason.startswith("NLL rise -0.0022 nats, 1st of 30; saves")


def test_nll_delta_may_weigh_recall() -> None:
    of = problem(profile([0.01, 0.02, 0.03], recall=[0.5, 0.0, 0.04]))
    assert converted(NllDelta(layers=1).select(of)) == {0}
    assert converted(NllDelta(layers=1, recall_weight=0.1).select(of)) == {1}
    items = NllDelta(layers=2, recall_weight=0.1).select(of)
    assert converted(items) == {1, 2}
    assert items[0].reason.startswith("weighted damage 0.0600 nats, 3rd of 3")


def test_nll_delta_may_leave_out_the_layers_that_carry_recall() -> None:
    of = problem(profile([0.01, 0.02, 0.03, 0.04], recall=[0.5, 0.0, 0.5, 0.7]))
    items = NllDelta(layers=2, leave_out_recall=2).select(of)
    assert converted(items) == {1, 2}, "of two equal falls the lower layer is left out"
    assert items[3].reason == "excluded: recall damage 0.7000 nats, 1st largest of 4"
    assert items[0].reason == "excluded: recall damage 0.5000 nats, 2nd largest of 4"
    with pytest.raises(InputError, match="cannot convert 3 layers: 2 of"):
        NllDelta(layers=3, leave_out_recall=2).select(of)


def test_linearity_reads_the_score_that_is_asked_for() -> None:
    scores = {"linearity": [0.9, 0.8], "linearity_delta_held_out": [-0.3, 0.1]}
    of = problem(profile([0.0, 0.0], scores=scores))
    assert converted(MostLinear(layers=1).select(of)) == {0}
    items = MostLinear(layers=1, score="linearity_delta_held_out").select(of)
    assert converted(items) == {1}
    assert items[1].reason.startswith("linearity_delta_held_out 0.1000, 1st of 2")
    with pytest.raises(InputError, match="no linearity_delta of layer 0"):
        MostLinear(layers=1, score="linearity_delta").select(of)


def test_trsp_says_the_scale() -> None:
    scores = {"trsp_order": [1.0, 0.0], "trsp_scale": [0.7, 0.9]}
    items = Trsp(layers=1).select(problem(profile([0.0, 0.0], scores=scores)))
    assert converted(items) == {1}, "masked first, though another's scale ended lower"
    assert items[1].reason.startswith("1st of 2 in TRSP's order: scale 0.9000; saves")


def test_random_draws_depend_on_seed_and_draw_alone() -> None:
    of = problem(profile([0.01] * 30))
    seeds = [of.model_copy(update={"seed": seed}) for seed in range(3)]
    drawn = [
        frozenset(converted(Random(layers=15, draw=draw).select(one)))
        for one in seeds
        for draw in range(3)
    ]
    assert len(set(drawn)) == 9
    assert all(len(one) == 15 for one in drawn)
    other_scores = problem(profile(NLL_RISES))
    assert converted(Random(layers=15).select(other_scores)) == drawn[0]
    assert converted(Random(layers=14).select(of)) < drawn[0], "a longer plan extends a shorter one"


def test_every_layer_is_drawn_about_as_often_as_the_others() -> None:
    of = problem(profile([0.01] * 10))
    counts = [0] * 10
    for draw in range(400):
        for layer in converted(Random(layers=3, draw=draw).select(of)):
            counts[layer] += 1
    # binomial, 120 expected with a standard deviation of 9.2
    assert sum(counts) == 1200
    assert all(75 < count < 165 for count in counts)
