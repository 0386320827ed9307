"""Prefill selection as a strategy: its defaults, and one layer's share of the cache."""

import pytest
from tiny import LAYERS, tiny_llama_config

from layerwright.tasks.hybrid.cache import predicted_kv_bytes
from layerwright.tasks.hybrid.configuration import FULL_LAYER
from layerwright.tasks.hybrid.families import from_base_config
from layerwright.tasks.strategies.prefill_selection import PrefillSelection


def test_defaults_are_the_papers():
    spec = PrefillSelection().layer_spec(FULL_LAYER)
    assert spec["mixer"] == {
        "kind": "prefill_selection",
        "full_layers": None,
        "sinks": 4,
        "window": 1020,
        "last_queries": 32,
    }
    assert PrefillSelection().reach_tokens() == 1024
    assert spec["feed_forward"] == FULL_LAYER["feed_forward"]


@pytest.mark.parametrize(("full_layers", "share"), [(1, 0.25), (None, 0.5), (0, 0), (9, 1)])
def test_predicts_one_layers_share(full_layers, share):
    strategy = PrefillSelection(full_layers=full_layers, sinks=2, window=6)
    base = from_base_config(tiny_llama_config())
    predicted = strategy.kv_bytes(base, 100, element_bytes=4, batch=3)
    slot = 2 * 2 * 8 * 4  # bytes of a token's key and value
    assert predicted == round(3 * slot * (share * 100 + (1 - share) * 7))
    converted = from_base_config(tiny_llama_config(), [strategy.layer_spec(FULL_LAYER)] * LAYERS)
    assert predicted_kv_bytes(converted, 100, 3, 4) == LAYERS * predicted
