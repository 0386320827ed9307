"""Limits besides KV bytes: parameters, memory, untouched layers; runs as one column."""

import itertools

import pytest
from choose.problems import BYTES_PER_TOKEN, CONTEXT, choice, profile, uniform
from facts import says

from layerwright.tasks.choose.base import Candidate, LayerOption, Problem, RunOption
from layerwright.tasks.choose.selectors.milp import Milp
from layerwright.tasks.contracts.base import Spec
from layerwright.tasks.contracts.profile import Damage
from layerwright.tasks.errors import InputError

MAP, KEPT = Spec(name="linear"), 1000
FULL = CONTEXT * BYTES_PER_TOKEN


def with_maps(
    singles: list[float], runs: dict[tuple[int, int], float], *, other: int = 0
) -> Problem:
    """Layers of 1,000 parameters that may become maps of 100, alone or a run as one map."""
    of = profile(singles, spec=MAP)
    layers = [
        layer.model_copy(
            update={
                "damage": layer.damage
                + tuple(
                    Damage(strategy=MAP, language_nats=nats, recall_nats=0, layers=stop - start)
                    for (start, stop), nats in runs.items()
                    if start == layer.layer
                )
            }
        )
        for layer in of.layers
    ]
    option = LayerOption(strategy=MAP, kv_bytes=0, parameters=100)
    candidate = Candidate(
        strategy=MAP,
        layers=(option,) * len(singles),
        runs=tuple(
            RunOption(strategy=MAP, kv_bytes=0, parameters=100, start=start, stop=stop)
            for start, stop in runs
        ),
    )
    return choice(
        of.model_copy(update={"layers": tuple(layers)}),
        candidate,
        layer_parameters=(KEPT,) * len(singles),
        other_parameters=other,
    )


def spans(items) -> list[tuple[int, int]]:
    return [(item.start, item.stop) for item in items if item.strategy == "linear"]


def test_a_run_is_one_thing_and_taken_where_it_costs_less() -> None:
    of = with_maps([0.2, 0.3, 0.4, 0.5], {(1, 3): 0.25, (2, 4): 0.26})
    items = Milp(parameters_ratio=0.6).select(of)
    assert spans(items) == [(1, 3)], "1,900 parameters for 0.25 nats; two single maps cost 0.5"
    (run,) = [item for item in items if item.stop - item.start > 1]
    assert (run.predicted_language_nats, run.predicted_kv_bytes) == (0.25, 0)
    assert "1.9 M" not in run.reason
    assert "saves 25.2 MB at 8,192 tokens and 0.0 M parameters" in run.reason


def test_no_cover_with_runs_is_better() -> None:
    singles, runs = [0.11, 0.2, 0.07, 0.3, 0.16], {(0, 2): 0.24, (1, 4): 0.31, (3, 5): 0.4}
    of = with_maps(singles, runs, other=500)
    prices = {(i, i + 1): nats for i, nats in enumerate(singles)} | runs
    total = KEPT * len(singles) + 500
    for ratio in (0.3, 0.5, 0.7, 0.85, 1.0):
        best = None
        for count in range(len(singles) + 1):
            for chosen in itertools.combinations(prices, count):
                layers = [layer for start, stop in chosen for layer in range(start, stop)]
                if len(layers) != len(set(layers)):
                    continue
                held = total - KEPT * len(layers) + 100 * len(chosen)
                cost = sum(prices[span] for span in chosen)
                if held <= ratio * total and (best is None or cost < best):
                    best = cost
        found = Milp(parameters_ratio=ratio).select(of)
        assert sum(item.predicted_language_nats for item in found) == pytest.approx(best)


def test_parameters_outside_the_layers_count_and_an_impossible_share_is_named() -> None:
    of = with_maps([0.1] * 4, {}, other=6000)
    with pytest.raises(InputError, match=says("0.5")):
        Milp(parameters_ratio=0.5).select(of)
    assert len(spans(Milp(parameters_ratio=0.64).select(of))) == 4
    assert len(spans(Milp(parameters_ratio=0.91).select(of))) == 1


def test_memory_is_weights_and_caches_together() -> None:
    of = with_maps([0.1] * 4, {})
    whole = 4 * 4 * KEPT + 3 * 4 * FULL  # fp32 weights, the caches of three rows
    one_less = whole - 4 * 900 - 3 * FULL
    ratio = one_less / whole
    assert len(spans(Milp(memory_ratio=ratio + 1e-6, batch=3).select(of))) == 1
    assert len(spans(Milp(memory_ratio=ratio - 1e-6, batch=3).select(of))) == 2


def test_a_floor_on_untouched_layers() -> None:
    of = with_maps([0.1] * 6, {(0, 4): 0.1})
    assert spans(Milp(parameters_ratio=0.8, keep_layers=2).select(of)) == [(0, 4)]
    assert len(spans(Milp(parameters_ratio=0.8, keep_layers=4).select(of))) == 2
    with pytest.raises(InputError, match=says("keep_layers", "5")) as error:
        Milp(parameters_ratio=0.8, keep_layers=5).select(of)
    assert error.value.where == "choose.selector.keep_layers"


def test_the_kl_is_another_price_and_must_be_there() -> None:
    of = profile([0.1, 0.2], spec=MAP)
    damages = [Damage(strategy=MAP, language_nats=n, recall_nats=0, kl_nats=k) for n, k in
               ((0.1, 0.9), (0.2, 0.3))]  # fmt: skip
    pairs = zip(of.layers, damages, strict=True)
    layers = [layer.model_copy(update={"damage": (damage,)}) for layer, damage in pairs]
    problem = choice(of.model_copy(update={"layers": tuple(layers)}), uniform(MAP, 0, 2))
    assert spans(Milp(kv_bytes_ratio=0.5).select(problem)) == [(0, 1)]
    assert spans(Milp(kv_bytes_ratio=0.5, language="kl").select(problem)) == [(1, 2)]
    without = problem.model_copy(update={"profile": of})
    with pytest.raises(InputError, match="KL"):
        Milp(kv_bytes_ratio=0.5, language="kl").select(without)


def test_a_budget_is_needed() -> None:
    with pytest.raises(ValueError, match="kv_bytes_ratio"):
        Milp(keep_layers=3)
