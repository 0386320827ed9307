"""Cache bytes: counted on real caches, and what the mixers predict."""

import pytest
import torch
from tiny_families import tiny_mixture

from layerwright.tasks.evaluate.metrics.kv_cache import KVCache, zero_filled_cache
from layerwright.tasks.hybrid.cache import predicted_kv_bytes
from layerwright.tasks.timing.speed import prefill


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tokens", [1, 7, 8, 100])  # the streaming layers keep at most 7
def test_both_ways_of_filling_give_the_predicted_bytes(hybrid, dtype, tokens):
    model = hybrid(streaming=(0, 2)).to(dtype)
    expected = predicted_kv_bytes(model.config, tokens, 1, dtype.itemsize)
    full, kept = 2 * tokens, 2 * min(tokens, 2 + 6 - 1)
    assert expected == (full + kept) * 2 * 2 * 8 * dtype.itemsize  # k and v, 2 heads of 8
    assert prefill(model, tokens)[0].nbytes() == expected
    assert zero_filled_cache(model, tokens).nbytes() == expected


@torch.no_grad()
@pytest.mark.parametrize("tokens", [5, 70])
def test_both_ways_agree_for_every_kind_of_layer(tokens):
    model = tiny_mixture("qwen3")
    expected = predicted_kv_bytes(model.config, tokens, 1, 4)
    assert prefill(model, tokens)[0].nbytes() == expected
    assert zero_filled_cache(model, tokens).nbytes() == expected


def test_measurements_say_how_they_were_obtained(make_arms, values, hybrid):
    metric = KVCache(tokens=(16, 4096), batches=(1, 3), prefill_tokens=16)
    arms = make_arms([metric], candidate=hybrid(streaming=(0, 1, 2)))
    found = values(metric, arms)
    names = {"kv_bytes.16", "kv_bytes.4096", "kv_bytes.16.b3", "kv_bytes.4096.b3"}
    assert {name for name, _ in found} == set(metric.names()) == names
    for tokens in (16, 4096):
        one, three = (found[f"kv_bytes.{tokens}{b}", "candidate"].value for b in ("", ".b3"))
        assert three == 3 * one
    assert "prefill" in found["kv_bytes.16", "base"].detail
    assert "tokens of zeros" in found["kv_bytes.4096", "base"].detail
    ratio = found["kv_bytes.4096", "candidate"].value / found["kv_bytes.4096", "base"].value
    assert ratio == pytest.approx((4096 + 3 * 7) / (4 * 4096))
    assert metric.estimate_tokens() == 16 + 3 * 16
