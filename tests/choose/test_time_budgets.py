"""Budgets of predicted time: exact, right for runs, and clear about what is missing."""

import itertools

import pytest
from choose.problems import STREAMING, profile
from costs.tables import OUTSIDE, STREAMED, TIMES, cost_table
from facts import says

from layerwright.tasks.choose.plan import choose_plan, problem_of
from layerwright.tasks.choose.selectors.milp import Milp
from layerwright.tasks.contracts.base import Spec
from layerwright.tasks.contracts.costs import planned_ratio, planned_time
from layerwright.tasks.contracts.plan import PassTime
from layerwright.tasks.contracts.profile import Damage, ModelProfile
from layerwright.tasks.errors import InputError
from layerwright.tasks.hybrid.configuration import FULL_LAYER, HybridConfig
from layerwright.tasks.recipe.choose import ChooseOptions
from layerwright.tasks.strategies.specs import assignments_of, specs_of

CONTEXT, LAYERS, MAP = 8192, 5, Spec(name="linear")
CONFIG = HybridConfig(
    num_hidden_layers=LAYERS, hidden_size=24, num_attention_heads=3, num_key_value_heads=3,
    head_dim=8, vocab_size=100, layer_specs=[FULL_LAYER] * LAYERS,
)  # fmt: skip
TABLE = cost_table(LAYERS, CONTEXT)
NATS = {
    "keep": {(i, i + 1): 0.0 for i in range(LAYERS)},
    "streaming": {(i, i + 1): nats for i, nats in enumerate((0.11, 0.05, 0.02, 0.3, 0.16))},
    "linear": {
        (0, 1): 0.5, (1, 2): 0.2, (2, 3): 0.35, (3, 4): 0.3, (4, 5): 0.6,
        (0, 2): 0.6, (1, 4): 0.31, (3, 5): 0.4,
    },
}  # fmt: skip
PREFILL = {"keep": 8.0, "streaming": 4.0, "linear": 0.5}
DECODE = {"keep": 4.0, "streaming": 3.0, "linear": 0.25}


def measured() -> ModelProfile:
    """Every layer as `streaming`, and layers and runs of them as one map."""
    of = profile(list(NATS["streaming"].values()))
    layers = [
        layer.model_copy(
            update={
                "damage": layer.damage
                + tuple(
                    Damage(strategy=MAP, language_nats=nats, recall_nats=0, layers=stop - start)
                    for (start, stop), nats in NATS["linear"].items()
                    if start == layer.layer
                )
            }
        )
        for layer in of.layers
    ]
    return of.model_copy(update={"layers": tuple(layers)})


def chosen(table=TABLE, context_tokens: int = CONTEXT, **budgets):
    wanted = ChooseOptions(
        selector=Spec(name="milp", **budgets),
        strategies=(STREAMING, MAP),
        context_tokens=context_tokens,
    )
    return choose_plan(problem_of(measured(), wanted, CONFIG, 0, table), Milp(**budgets))


def covers(start: int = 0):
    """Every way to cover the layers from ``start`` on, as (strategy, first, stop) each."""
    if start == LAYERS:
        yield ()
    for strategy, spans in NATS.items():
        for first, stop in spans:
            if first == start:
                for rest in covers(stop):
                    yield ((strategy, first, stop), *rest)


@pytest.mark.parametrize("ratio", [0.2, 0.35, 0.5, 0.65, 0.8, 0.95, 1.0])
@pytest.mark.parametrize("part", [0, 1], ids=["prefill", "decode"])
def test_no_plan_within_the_budget_does_less_damage(part: int, ratio: float) -> None:
    seconds, field = ((PREFILL, "prefill_seconds_ratio"), (DECODE, "decode_seconds_ratio"))[part]
    base = OUTSIDE[part] + LAYERS * seconds["keep"]

    def share(cover) -> float:
        # a run is one map, however long
        return (OUTSIDE[part] + sum(seconds[strategy] for strategy, _, _ in cover)) / base

    best = min(
        sum(NATS[strategy][first, stop] for strategy, first, stop in cover)
        for cover in covers()
        if share(cover) <= ratio
    )
    plan = chosen(**{field: ratio})
    assert sum(item.predicted_language_nats for item in plan.items) == pytest.approx(best)
    taken = share([(item.strategy, item.start, item.stop) for item in plan.items])
    assert taken <= ratio
    assert planned_ratio(plan)[part] == pytest.approx(taken)


def test_a_plan_says_its_times_and_which_table_they_are_from() -> None:
    plan = chosen(prefill_seconds_ratio=0.35)
    assert plan.costs_sha256 == TABLE.sha256
    assert plan.base_time == PassTime(prefill_seconds=42.0, decode_seconds_per_token=21.0)
    specs = specs_of(assignments_of(plan.items), TABLE.base_specs)
    assert planned_time(plan) == TABLE.at(CONTEXT).of_model(specs)
    (run,) = [item for item in plan.items if item.stop - item.start > 1]
    assert run.predicted_time == PassTime(prefill_seconds=0.5, decode_seconds_per_token=0.25)
    saved = (run.stop - run.start) * 8000 - 500
    assert f", {saved:,.2f} ms of its prefill and " in run.reason


def test_a_run_that_was_not_measured_is_one_map_too() -> None:
    wanted = ChooseOptions(
        selector=Spec(name="listed", layers=[[0, 2]]), strategies=(MAP,), context_tokens=CONTEXT
    )
    problem = problem_of(measured(), wanted, CONFIG, 0, TABLE)
    item = problem.converted(problem.layers[:3], problem.candidates[0], "")
    assert item.predicted_time == PassTime(prefill_seconds=0.5, decode_seconds_per_token=0.25)
    parameters = [option.parameters for option in problem.candidates[0].options(0, 3)]
    assert parameters == [24 * 24 + 24, 0, 0]


def test_without_a_table_a_plan_has_no_times() -> None:
    plan = chosen(table=None, kv_bytes_ratio=0.5)
    assert (plan.costs_sha256, plan.base_time, planned_time(plan)) == (None, None, None)
    assert all(item.predicted_time is None for item in plan.items)
    assert not any("prefill" in item.reason for item in plan.items)


@pytest.mark.parametrize("field", ["prefill_seconds_ratio", "decode_seconds_ratio"])
@pytest.mark.parametrize("table", [None, TABLE], ids=["no table", "another length"])
def test_a_budget_of_time_needs_times_at_its_length(field: str, table) -> None:
    with pytest.raises(InputError, match=says("times", "4,096 tokens")) as error:
        chosen(table=table, context_tokens=4096, **{field: 0.5})
    assert error.value.where == f"choose.selector.{field}"
    assert "costs: {context_tokens: [4096]}" in error.value.remedy


def test_a_strategy_that_was_not_timed_is_named() -> None:
    table = cost_table(LAYERS, CONTEXT, times=[t for t in TIMES if t[0] != STREAMED])
    with pytest.raises(InputError, match=says("time", "streaming")):
        chosen(table=table, decode_seconds_ratio=0.5)
    assert planned_time(chosen(table=table, kv_bytes_ratio=0.5)) is None


def test_what_cannot_be_reached_is_said_with_the_least() -> None:
    least = (OUTSIDE[1] + min(len(c) for c in covers()) * DECODE["linear"]) / 21
    with pytest.raises(InputError, match=says("8,192 tokens", f"{least:.4f}")) as error:
        chosen(decode_seconds_ratio=0.05)
    assert error.value.where == "choose.selector.decode_seconds_ratio"


def test_both_budgets_hold_together() -> None:
    for prefill, decode in itertools.product((0.3, 0.6), (0.4, 0.9)):
        ratio = planned_ratio(chosen(prefill_seconds_ratio=prefill, decode_seconds_ratio=decode))
        assert ratio.prefill <= prefill
        assert ratio.decode <= decode
