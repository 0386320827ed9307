"""Where the spans of the local strategy come from, and what it adds to a checkpoint."""

import pytest
import torch
from pydantic import ValidationError
from tiny import LAYER_SPECS, LAYERS, tiny_hybrid, tiny_llama_config, tiny_tokens

from layerwright.tasks.components import build
from layerwright.tasks.contracts.profile import CacheGeometry, LayerProfile, ModelProfile
from layerwright.tasks.errors import InputError
from layerwright.tasks.hybrid.cache import HybridCache
from layerwright.tasks.hybrid.configuration import FULL_LAYER
from layerwright.tasks.hybrid.families import from_base_config
from layerwright.tasks.passes.fitting import convert_in_place
from layerwright.tasks.profile.base import SharedPass
from layerwright.tasks.profile.profilers.covered_span import CoveredSpan
from layerwright.tasks.strategies.base import Strategy
from layerwright.tasks.strategies.keep import Keep
from layerwright.tasks.strategies.local import Local, smallest_span
from layerwright.tasks.strategies.specs import Assignment, resolved
from layerwright.tasks.strategies.streaming import Streaming

SCORES = {
    **{"covered_mass_8": 0.90, "covered_mass_8.head_0": 0.99, "covered_mass_8.head_1": 0.81},
    **{"covered_mass_32": 0.96, "covered_mass_32.head_0": 1.0, "covered_mass_32.head_1": 0.92},
    "lazy_ratio": 0.5,
}


def test_the_smallest_span_that_covers_enough_or_the_widest() -> None:
    masses = {8: 0.9, 16: 0.95, 64: 0.99}
    assert [smallest_span(masses, tau) for tau in (0.5, 0.9, 0.95, 0.951, 1.0)] == [
        *(8, 8, 16, 64, 64)
    ]


def test_spans_come_from_the_profile_by_layer_or_by_head() -> None:
    by_layer = Local(spans="layer").resolved(SCORES)
    assert by_layer.spans == 32
    by_head = Local(spans="head", correction="block_mean").resolved(SCORES)
    assert by_head.spans == (8, 32)
    assert by_head.layer_spec(FULL_LAYER)["mixer"]["spans"] == [8, 32]
    assert build(Strategy, by_head.spec) == by_head  # as a plan writes it down
    assert Local(spans=7).resolved({}).spans == 7


def test_a_profile_gives_a_real_layer_its_spans() -> None:
    rows, profiler = tiny_tokens(2, 45), CoveredSpan(spans=(2, 6, 30), sinks=4, last_queries=10)
    (found,) = SharedPass([profiler], tiny_hybrid(LAYER_SPECS["full"]), rows).run()
    for scores in found.scores:
        spans = Local(spans="head", tau=0.8).resolved(scores).spans
        for head, span in enumerate(spans):
            assert span == 30 or scores[f"covered_mass_{span}.head_{head}"] >= 0.8


def test_spans_from_no_profile_are_refused() -> None:
    with pytest.raises(InputError, match="no covered mass"):
        Local(spans="layer").resolved({"lazy_ratio": 0.5})
    with pytest.raises(InputError, match="unknown without a profile"):
        Local(spans="head").layer_spec(FULL_LAYER)


@torch.inference_mode()
@pytest.mark.parametrize(
    "options",
    [
        {"spans": (3, 9)},
        {"correction": "block_mean"},
        {"spans": 5, "correction": "block_mean", "block": 4, "widen": 0.9},
    ],
)
@pytest.mark.parametrize("context_tokens", [1, 9, 40])
def test_kv_bytes_are_those_of_a_real_cache(options: dict, context_tokens: int) -> None:
    strategy = Local(**options)
    model = tiny_hybrid(strategy.layer_spec(FULL_LAYER), layers=tuple(range(LAYERS)))
    cache = HybridCache(model.config)
    model(tiny_tokens(3, context_tokens), past_key_values=cache)
    base = from_base_config(tiny_llama_config())
    predicted = strategy.kv_bytes(base, context_tokens, element_bytes=4, batch=3)
    assert cache.nbytes() == LAYERS * predicted


@torch.inference_mode()
def test_nothing_beyond_the_reach_is_seen_by_itself() -> None:
    """Without a correction, what lies beyond is not seen at all."""
    strategy = Local(spans=6, sinks=2)
    model = tiny_hybrid(strategy.layer_spec(LAYER_SPECS["full"]), layers=(3,))
    x, placement = model.model.prepare(tiny_tokens(1, 40))
    x = model.model.run_layers(x, placement, 0, 3)
    changed = x.clone()
    changed[:, 2 : 40 - strategy.reach_tokens()] += 1.0
    out, other = (model.model.run_layers(states, placement, 3) for states in (x, changed))
    assert torch.equal(out[:, -1], other[:, -1])


def test_a_soft_span_is_a_tensor_of_the_converted_model() -> None:
    model = tiny_hybrid(LAYER_SPECS["full"])
    parts = [Assignment(i, i + 1, Local(spans=9, ramp=4)) for i in range(LAYERS)]
    fitted = convert_in_place(model, parts, lambda: tiny_tokens(2, 20))
    assert set(fitted) == {f"model.layers.{i}.self_attn.span" for i in range(LAYERS)}
    assert set(fitted) <= set(model.state_dict())
    assert model.model.layers[2].self_attn.soft_spans().tolist() == [5, 5]


@pytest.mark.parametrize(
    "options",
    [
        {"spans": 0},
        {"spans": ()},
        {"spans": (4, 0)},
        {"spans": "model"},
        {"tau": 0},
        {"widen": 0.9},
        {"correction": "block_mean", "widen": 1.0},
        {"correction": "block_mean", "ramp": 4},
        {"spans": 8, "ramp": 9},
    ],
)
def test_impossible_options_are_refused(options: dict) -> None:
    with pytest.raises(ValidationError):
        Local.model_validate(options)


def test_every_strategy_that_profiles_ask_for_is_named_once() -> None:
    wide = SCORES | {"covered_mass_32": 0.5, "covered_mass_8": 0.99}
    profile = ModelProfile(
        model_sha256="a" * 64,
        text_sha256="b" * 64,
        tokens=8,
        layers=tuple(
            LayerProfile(layer=i, scores=scores) for i, scores in enumerate((SCORES, wide, SCORES))
        ),
        geometry=CacheGeometry(kv_heads=2, head_dim=8, element_bytes=4),
    )
    streaming = Streaming(window=8)
    wanted = (Keep(), Local(spans="layer"), streaming, streaming)
    assert resolved(wanted, profile) == (
        Local(spans=32),
        Local(spans=8),
        streaming,
    )
