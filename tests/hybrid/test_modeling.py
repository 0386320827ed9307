"""The model: equal to its base where nothing is converted, right where something is."""

import pytest
import torch
from facts import says
from tiny import LAYER_SPECS, tiny_hybrid, tiny_llama, tiny_tokens
from tolerance import SAME_MODEL, relative_rms
from transformers import DynamicCache

from layerwright.kernels.streaming_attention.reference import visible_keys
from layerwright.tasks.hybrid.cache import HybridCache

FULL, STREAMING = LAYER_SPECS["full"], LAYER_SPECS["streaming"]
LIMIT = SAME_MODEL[torch.float32]


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


def test_streaming_everywhere_equals_llama_under_the_mask():
    """An oracle that shares no code with ours: Llama, given the mask of every layer."""
    base, hybrid = tiny_llama(), tiny_hybrid(STREAMING, layers=(0, 1, 2, 3))
    ids = tiny_tokens(2, 60)
    positions = torch.arange(60)[None]
    visible = visible_keys(positions, positions, sinks=2, window=6)[:, None]
    mask = torch.where(visible, 0.0, torch.finfo(torch.float32).min).expand(2, 1, 60, 60)
    expected = base(ids, attention_mask=mask).logits
    assert relative_rms(hybrid(ids).logits, expected) <= LIMIT
    assert relative_rms(base(ids).logits, expected) > 0.1  # the mask matters


def test_logits_to_keep_and_embeddings():
    model = tiny_hybrid(STREAMING)
    ids = tiny_tokens(2, 20)
    logits = model(ids).logits
    assert relative_rms(model(ids, logits_to_keep=3).logits, logits[:, -3:]) <= LIMIT
    chosen = torch.tensor([2, 5])
    assert relative_rms(model(ids, logits_to_keep=chosen).logits, logits[:, chosen]) <= LIMIT
    embedded = model.get_input_embeddings()(ids)
    assert relative_rms(model(inputs_embeds=embedded).logits, logits) <= LIMIT
    with pytest.raises(ValueError, match="exactly one of"):
        model(ids, inputs_embeds=embedded)


def test_positions_may_start_anywhere():
    """RoPE is relative, but sinks are absolute: from position 100 on there are none."""
    with_sinks, without = (
        tiny_hybrid({"mixer": {"kind": "streaming", "sinks": sinks, "window": 6}})
        for sinks in (2, 0)
    )
    ids = tiny_tokens(2, 40)
    positions = torch.arange(100, 140)[None]
    shifted = with_sinks(ids, position_ids=positions).logits
    assert relative_rms(shifted, without(ids).logits) <= LIMIT
    cache = with_sinks(ids[:, :30], position_ids=positions[:, :30], use_cache=True).past_key_values
    later = with_sinks(ids[:, 30:], past_key_values=cache).logits
    assert relative_rms(later, shifted[:, 30:]) <= LIMIT


def test_stages_equal_forward():
    """The input of layer 2, stored, is enough to run what lies above it."""
    model = tiny_hybrid(STREAMING)
    ids = tiny_tokens(3, 20)
    mask = torch.ones_like(ids)
    mask[1, :5] = 0
    hidden, placement = model.model.prepare(ids, mask)
    stored = model.model.run_layers(hidden, placement, 0, 2)
    again = model.model.place(stored, mask)
    logits = model.head(model.model.run_layers(stored, again, start=2))
    assert relative_rms(logits, model(ids, attention_mask=mask).logits) <= LIMIT


def test_set_layer_spec_converts_in_place_and_back():
    model = tiny_hybrid(FULL)
    ids = tiny_tokens(2, 40)
    before = model(ids).logits
    weights = {name: p.data_ptr() for name, p in model.named_parameters()}
    old = model.set_layer_spec(2, STREAMING)
    assert relative_rms(model(ids).logits, tiny_hybrid(STREAMING, (2,))(ids).logits) <= LIMIT
    assert relative_rms(model(ids).logits, before) > 1e-3
    assert model.config.capabilities["mixers"] == ["full", "streaming"]
    assert {name: p.data_ptr() for name, p in model.named_parameters()} == weights
    assert not model.model.layers[2].self_attn.training
    model.put_layer(2, old)
    assert model(ids).logits.equal(before)
    assert model.config.capabilities == tiny_hybrid(FULL).config.capabilities
    with pytest.raises(ValueError, match=says("layer 1", "'lazy'")):
        model.set_layer_spec(1, {"mixer": {"kind": "lazy"}})
    assert model(ids).logits.equal(before)


def test_other_caches_are_refused():
    model = tiny_hybrid(STREAMING)
    ids = tiny_tokens(1, 5)
    with pytest.raises(ValueError, match=says("HybridCache", "DynamicCache")):
        model(ids, past_key_values=DynamicCache(config=model.config))
    with pytest.raises(ValueError, match=says("HybridCache", "DynamicCache")):
        model.generate(ids, past_key_values=DynamicCache(), max_new_tokens=2)
    with pytest.raises(ValueError, match="other layer specs"):
        model(ids, past_key_values=HybridCache(tiny_hybrid(FULL).config))
    with pytest.raises(ValueError, match="cache_implementation='static'"):
        model.generate(ids, cache_implementation="static", max_new_tokens=2)


def test_masks_and_positions_that_cannot_be_right_are_refused():
    model = tiny_hybrid(STREAMING)
    ids = tiny_tokens(2, 6)
    cache = model(ids, use_cache=True).past_key_values
    with pytest.raises(ValueError, match=r"shape \(2, 7\)"):
        model(ids[:, :1], attention_mask=torch.ones(2, 1), past_key_values=cache)
    late = torch.ones(2, 7)
    late[0, 0] = 0
    with pytest.raises(ValueError, match="contradicts the padding"):
        model(ids[:, :1], attention_mask=late, past_key_values=cache)
    with pytest.raises(ValueError, match="sequences"):
        model(ids, position_ids=torch.tensor([[0, 1, 2, 0, 1, 2]]))
    with pytest.raises(ValueError, match=says("attention_mask", "shape")):
        model(ids, attention_mask=torch.ones(2, 1, 6, 6))


def test_a_generated_cache_can_be_continued():
    model = tiny_hybrid(STREAMING)
    ids = tiny_tokens(2, 12)
    options = {"do_sample": False, "return_dict_in_generate": True}
    first = model.generate(ids, max_new_tokens=6, **options)
    second = model.generate(
        first.sequences, past_key_values=first.past_key_values, max_new_tokens=6, **options
    )
    assert second.sequences.equal(model.generate(ids, max_new_tokens=12, **options).sequences)
