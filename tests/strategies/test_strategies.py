"""What holds for every strategy, and what the two say of themselves."""

from pathlib import Path

import pytest
import torch
from facts import says
from pydantic import ValidationError
from tiny import LAYER_SPECS, LAYERS, tiny_hybrid, tiny_llama_config, tiny_tokens

from layerwright.tasks.components import build, discover
from layerwright.tasks.contracts.base import Spec
from layerwright.tasks.contracts.plan import ConversionPlan, PlanItem
from layerwright.tasks.errors import InputError
from layerwright.tasks.hybrid.cache import HybridCache
from layerwright.tasks.hybrid.configuration import FULL_LAYER
from layerwright.tasks.hybrid.families import from_base_config
from layerwright.tasks.strategies.base import Strategy
from layerwright.tasks.strategies.keep import Keep
from layerwright.tasks.strategies.specs import assignments_of, specs_of
from layerwright.tasks.strategies.streaming import Streaming

NAMES = sorted(discover(Strategy))


def plan_of(*items: PlanItem) -> ConversionPlan:
    return ConversionPlan(
        model_sha256="0" * 64,
        layers=items[-1].stop,
        context_tokens=64,
        selector="by hand",
        items=items,
    )


def test_each_is_found_by_its_name_in_a_file_of_its_name() -> None:
    assert {"keep", "streaming"} <= set(NAMES)
    for name, strategy in discover(Strategy).items():
        assert Path(strategy.__module__.replace(".", "/")).name == name


@pytest.mark.parametrize("name", NAMES)
def test_the_spec_is_one_that_the_hybrid_model_takes(name: str) -> None:
    spec = build(Strategy, Spec(name=name)).layer_spec(FULL_LAYER)
    config = from_base_config(tiny_llama_config(), [spec] * LAYERS)
    assert config.layer_specs[0] == spec, "with every parameter of its mixer"
    assert FULL_LAYER == {"mixer": {"kind": "full"}, "feed_forward": {"kind": "mlp"}}


@torch.inference_mode()
@pytest.mark.parametrize("context_tokens", [1, 9, 30])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("strategy", [Keep(), Streaming(sinks=2, window=6)], ids=lambda s: s.name)
def test_kv_bytes_are_those_of_a_real_cache(strategy, context_tokens: int, batch: int) -> None:
    model = tiny_hybrid(strategy.layer_spec(FULL_LAYER), layers=tuple(range(LAYERS)))
    cache = HybridCache(model.config)
    model(tiny_tokens(batch, context_tokens), past_key_values=cache)
    base = from_base_config(tiny_llama_config())
    predicted = strategy.kv_bytes(base, context_tokens, element_bytes=4, batch=batch)
    assert cache.nbytes() == LAYERS * predicted


def test_defaults_of_streaming_are_the_papers() -> None:
    assert Streaming().layer_spec(FULL_LAYER)["mixer"] == {
        "kind": "streaming",
        "sinks": 4,
        "window": 1020,
    }
    assert (Streaming().reach_tokens(), Keep().reach_tokens()) == (1024, None)


@torch.inference_mode()
def test_nothing_beyond_the_reach_is_seen() -> None:
    strategy = Streaming(sinks=2, window=6)
    ids = tiny_tokens(1, 40)
    model = tiny_hybrid(strategy.layer_spec(LAYER_SPECS["full"]), layers=(3,))
    x, placement = model.model.prepare(ids)
    x = model.model.run_layers(x, placement, 0, 3)
    changed = x.clone()
    changed[:, 2 : 40 - strategy.reach_tokens()] += 1.0
    out, other = (model.model.run_layers(states, placement, 3) for states in (x, changed))
    assert torch.equal(out[:, -1], other[:, -1])
    changed[:, 40 - 6] += 1.0  # the oldest token in the window
    assert not torch.equal(out[:, -1], model.model.run_layers(changed, placement, 3)[:, -1])


@pytest.mark.parametrize("options", [{"window": 0}, {"sinks": -1}, {"windows": 5}])
def test_impossible_options_are_refused(options: dict) -> None:
    with pytest.raises(ValidationError):
        Streaming.model_validate(options)


def test_specs_of_a_plan_follow_its_items() -> None:
    plan = plan_of(
        PlanItem(start=0, stop=2, strategy="keep"),
        PlanItem(start=2, stop=3, strategy="streaming", params={"sinks": 1, "window": 8}),
        PlanItem(start=3, stop=5, strategy="streaming", params={"window": 9}),
    )
    kinds = [spec["mixer"] for spec in specs_of(assignments_of(plan.items))]
    full = {"kind": "full"}
    narrow = {"kind": "streaming", "sinks": 1, "window": 8}
    wide = {"kind": "streaming", "sinks": 4, "window": 9}
    assert kinds == [full, full, narrow, wide, wide]
    assert [part.strategy.name for part in assignments_of(plan.items)] == ["keep"] * 2 + [
        "streaming"
    ] * 3


def test_runs_are_one_thing_where_the_strategy_joins_them() -> None:
    plan = plan_of(
        PlanItem(start=0, stop=3, strategy="linear"),
        PlanItem(start=3, stop=4, strategy="linear"),
        PlanItem(start=4, stop=5, strategy="remove", params={"patch": True}),
        PlanItem(start=5, stop=7, strategy="remove", params={"patch": True}),
        PlanItem(start=7, stop=8, strategy="remove"),
        PlanItem(start=8, stop=10, strategy="drop_attention"),
    )
    parts = [(part.start, part.stop, part.strategy.name) for part in assignments_of(plan.items)]
    assert parts == [
        *((0, 3, "linear"), (3, 4, "linear")),
        *((4, 7, "remove"), (7, 8, "remove")),
        *((8, 9, "drop_attention"), (9, 10, "drop_attention")),
    ]
    specs = specs_of(assignments_of(plan.items))
    parts_of = [(spec["mixer"]["kind"], spec["feed_forward"]["kind"]) for spec in specs]
    gone = ("none", "none")
    assert parts_of == [
        *(("none", "linear"), gone, gone, ("none", "linear")),
        *[gone] * 4,
        *[("none", "mlp")] * 2,
    ]


def test_a_plan_with_an_unknown_option_names_the_item() -> None:
    plan = plan_of(
        PlanItem(start=0, stop=1, strategy="keep"),
        PlanItem(start=1, stop=2, strategy="streaming", params={"windows": 8}),
    )
    with pytest.raises(InputError, match=says("items.1", "streaming", "sinks", "window")):
        assignments_of(plan.items)
