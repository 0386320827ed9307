"""From options to a plan, with the strategies' own prediction of KV bytes."""

import pytest
from choose.problems import BYTES_PER_TOKEN, NLL_RISES, STREAMING, converted, covers, profile
from pydantic import ValidationError

from layerwright.tasks.choose.base import Selector, ordinal
from layerwright.tasks.choose.plan import choose_plan as plan_of
from layerwright.tasks.choose.plan import problem_of
from layerwright.tasks.components import discover
from layerwright.tasks.contracts.base import Spec
from layerwright.tasks.contracts.plan import ConversionPlan
from layerwright.tasks.contracts.profile import ModelProfile
from layerwright.tasks.errors import InputError
from layerwright.tasks.hybrid.configuration import FULL_LAYER, HybridConfig
from layerwright.tasks.recipe.choose import ChooseOptions

FALLING = [0.9 - 0.01 * i for i in range(30)]
SCORES = ("block_influence", "angular_distance_8", "linearity", "trsp_order", "trsp_scale")
PROFILE = profile(NLL_RISES, lazy=FALLING, scores=dict.fromkeys(SCORES, FALLING))
OPTIONS = {
    "angular": {"layers": 8},
    "convert_all": {},
    "keep_all": {},
    "lightransfer": {"layers": 15},
    "linearity": {"layers": 15},
    "listed": {"layers": [3, 17, 25]},
    "milp": {"kv_bytes_ratio": 0.505},
    "nll_delta": {"layers": 15},
    "random": {"layers": 15},
    "shortgpt": {"layers": 15},
    "trsp": {"layers": 15},
    "uniform": {"layers": 15},
}


# the shape that the profile is of
CONFIG = HybridConfig(
    num_hidden_layers=30,
    hidden_size=576,
    num_attention_heads=9,
    num_key_value_heads=3,
    head_dim=64,
    vocab_size=100,
    layer_specs=[FULL_LAYER] * 30,
)


def choose_plan(of: ModelProfile, wanted: ChooseOptions) -> ConversionPlan:
    return plan_of(problem_of(of, wanted, CONFIG), wanted.selector)


def options(name: str, **update) -> ChooseOptions:
    given = {"selector": Spec(name=name, **OPTIONS.get(name, {})), "strategies": (STREAMING,)}
    return ChooseOptions(**(given | update))


def test_every_selector_is_tried_here() -> None:
    assert set(discover(Selector)) == set(OPTIONS) | {
        "sleb"
    }  # which needs a model: test_refinement


@pytest.mark.parametrize("name", OPTIONS)
def test_every_selector_makes_a_whole_plan_and_the_same_one_again(name: str) -> None:
    plan = choose_plan(PROFILE, options(name))
    assert covers(plan.items, 30)
    assert (plan.selector, plan.model_sha256, plan.context_tokens) == (name, "a" * 64, 8192)
    assert choose_plan(PROFILE, options(name)) == plan


def test_the_ends_of_the_frontier() -> None:
    assert converted(choose_plan(PROFILE, options("keep_all")).items) == set()
    assert converted(choose_plan(PROFILE, options("convert_all")).items) == set(range(30))


def test_kv_bytes_are_what_the_strategy_predicts() -> None:
    plan = choose_plan(PROFILE, options("convert_all"))
    # sinks + window - 1 past tokens are held; the query brings its own
    assert {i.predicted_kv_bytes for i in plan.items} == {67 * BYTES_PER_TOKEN}
    short = choose_plan(PROFILE, options("convert_all", context_tokens=32))
    assert {i.predicted_kv_bytes for i in short.items} == {32 * BYTES_PER_TOKEN}


def test_keep_among_the_strategies_changes_nothing() -> None:
    both = options("milp", strategies=(Spec(name="keep"), STREAMING))
    assert choose_plan(PROFILE, both) == choose_plan(PROFILE, options("milp"))
    with pytest.raises(InputError, match="no strategy that converts"):
        choose_plan(PROFILE, options("milp", strategies=(Spec(name="keep"),)))


def test_wrong_options_say_where() -> None:
    with pytest.raises(ValidationError) as error:
        options("milp", selector=Spec(name="milp", kv_bytes_ratio=1.5))
    assert error.value.errors()[0]["loc"] == ("selector", "kv_bytes_ratio")
    with pytest.raises(ValidationError) as error:
        options("milp", strategies=(Spec(name="streaming", window=0),))
    assert error.value.errors()[0]["loc"] == ("strategies", 0, "window")


def test_ordinals() -> None:
    numbers = [1, 2, 3, 4, 10, 11, 12, 13, 20, 21, 22, 111, 112]
    assert " ".join(map(ordinal, numbers)) == (
        "1st 2nd 3rd 4th 10th 11th 12th 13th 20th 21st 22nd 111th 112th"
    )


def test_listed_layers_are_converted_and_runs_are_one_item() -> None:
    plan = choose_plan(PROFILE, options("listed", selector=Spec(name="listed", layers=[2, [5, 7]])))
    changed = [(i.start, i.stop) for i in plan.items if i.strategy != "keep"]
    assert changed == [(2, 3), (5, 8)]
    assert plan.items[2].predicted_language_nats == NLL_RISES[2]
    assert plan.items[5].predicted_kv_bytes == 3 * 67 * BYTES_PER_TOKEN


@pytest.mark.parametrize("layers", [[], [3, 2], [3, 3], [[4, 2]], [[2, 5], 5]])
def test_listed_layers_ascend(layers: list) -> None:
    with pytest.raises(ValidationError, match="listed"):
        options("listed", selector=Spec(name="listed", layers=layers))


def test_listed_layers_exist() -> None:
    with pytest.raises(InputError, match="no layer 30") as error:
        choose_plan(PROFILE, options("listed", selector=Spec(name="listed", layers=[[28, 30]])))
    assert error.value.expected == "layers from 0 to 29"


def test_a_base_with_sliding_windows_keeps_what_it_kept() -> None:
    geometry = PROFILE.geometry.model_copy(update={"window_tokens": (1023, *[None] * 29)})
    sliding = PROFILE.model_copy(update={"geometry": geometry})
    plan = choose_plan(sliding, options("keep_all"))
    assert [i.predicted_kv_bytes for i in plan.items[:2]] == [
        1023 * BYTES_PER_TOKEN,
        8192 * BYTES_PER_TOKEN,
    ]
    assert sliding.base_kv_bytes(8192) == (1023 + 29 * 8192) * BYTES_PER_TOKEN
