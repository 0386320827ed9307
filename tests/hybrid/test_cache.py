"""The cache: what streaming layers keep, and what cannot be undone."""

import pytest
import torch
from facts import says
from tiny import LAYER_SPECS, tiny_hybrid, tiny_tokens
from tolerance import SAME_MODEL, relative_rms

from layerwright.tasks.hybrid.cache import HybridCache, predicted_kv_bytes
from layerwright.tasks.hybrid.mixers.streaming import StreamingCacheLayer, kept_positions

FULL, STREAMING = LAYER_SPECS["full"], LAYER_SPECS["streaming"]


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (0, []),
        (1, [0]),
        (4, [0, 1, 2, 3]),
        (5, [0, 1, 2, 3, 4]),
        (6, [0, 1, 3, 4, 5]),
        (20, [0, 1, 17, 18, 19]),
    ],
)
def test_kept_positions(seen, expected):
    assert kept_positions(seen, sinks=2, window=4).tolist() == [expected]


@pytest.mark.parametrize("chunk", [1, 3, 20])
def test_streaming_layer_keeps_sinks_and_window_of_each_row(chunk):
    """Keys carry their positions here, so what is kept can be read off."""
    layer = StreamingCacheLayer(sinks=2, window=4)
    positions = torch.stack(
        [torch.cat([torch.full((pad,), -1), torch.arange(20 - pad)]) for pad in (0, 7, 17)]
    )
    for start in range(0, 20, chunk):
        now = positions[:, start : start + chunk]
        keys = now[:, None, :, None].float().expand(-1, 2, -1, 3)
        layer.update(keys, keys + 0.5, now)
    assert layer.get_seq_length() == 20
    for row, kept in enumerate(([0, 1, 17, 18, 19], [0, 1, 10, 11, 12], [0, 1, 2])):
        real = layer.positions[row] >= 0
        assert sorted(layer.positions[row, real].tolist()) == kept
        assert layer.keys[row, 0, real, 0].long().equal(layer.positions[row, real])
        assert (layer.values[row, 1, real, 2] - 0.5).long().equal(layer.positions[row, real])


def test_memory_of_streaming_layers_does_not_grow():
    model = tiny_hybrid(STREAMING, layers=(0, 1, 2, 3))
    at = [predicted_kv_bytes(model.config, tokens, 2, 4) for tokens in (7, 8, 100)]
    assert at[0] == at[1] == at[2] == 2 * 4 * 7 * (2 * 2 * 8 * 4)
    with torch.no_grad():
        cache = model(tiny_tokens(2, 300), use_cache=True).past_key_values
    assert cache.nbytes() == at[2]


def test_full_layers_can_be_cropped():
    model = tiny_hybrid(FULL)
    ids = tiny_tokens(2, 20)
    mask = torch.ones_like(ids)
    mask[0, :6] = 0
    with torch.no_grad():
        for used in (None, mask):
            output = model(ids, attention_mask=used, use_cache=True)
            cache = output.past_key_values
            cache.crop(-8)
            assert cache.get_seq_length() == 12
            again = model(ids[:, 12:], attention_mask=used, past_key_values=cache).logits
            limit = SAME_MODEL[torch.float32]
            assert relative_rms(again, output.logits[:, 12:]) <= limit
        options = {"max_new_tokens": 10, "do_sample": False}
        looked_up = model.generate(ids[:1], prompt_lookup_num_tokens=3, **options)
        assert looked_up.equal(model.generate(ids[:1], **options))


def test_streaming_layers_refuse_to_be_cropped():
    model = tiny_hybrid(STREAMING)
    ids = tiny_tokens(1, 20)
    with torch.no_grad():
        cache = model(ids, use_cache=True).past_key_values
        held = cache.nbytes()
        cache.crop(0)
        with pytest.raises(RuntimeError, match=says("layers [0, 1, 3]")):
            cache.crop(-2)
        assert (cache.get_seq_length(), cache.nbytes()) == (20, held)
        assert not cache.is_croppable
        with pytest.raises(RuntimeError, match="crop: true"):
            model.generate(ids, prompt_lookup_num_tokens=3, max_new_tokens=30, do_sample=False)
    with pytest.raises(RuntimeError, match="cannot be cropped"):
        cache.layers[0].crop(-1)


def test_length_is_that_of_the_context_in_every_layer():
    model = tiny_hybrid(STREAMING)
    cache = HybridCache(model.config)
    with torch.no_grad():
        for length in (5, 20):
            model(tiny_tokens(1, length), past_key_values=cache)
    assert cache.get_seq_length() == 25
    assert [layer.get_seq_length() for layer in cache.layers] == [25] * 4
