"""Decoding over tensors of fixed size gives what the growing cache gives."""

from copy import deepcopy

import pytest
import torch
from tiny import LAYER_SPECS, tiny_hybrid, tiny_tokens
from tolerance import SAME_MODEL, relative_rms

from layerwright.tasks.hybrid.cache import HybridCache

LIMIT = SAME_MODEL[torch.float32]
FIXED = [
    name
    for name, spec in LAYER_SPECS.items()
    if spec["mixer"]["kind"] in ("full", "none", "streaming", "window", "gated_recurrence")
]


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


def compare(model, prompt, steps, mask=None):
    """Logits of each step by the fixed decoder and by the model's own cache."""
    device = model.model.embed_tokens.weight.device
    prompt, mask = prompt.to(device), None if mask is None else mask.to(device)
    cache = model(prompt, attention_mask=mask, use_cache=True).past_key_values
    decoder = model.fixed_decoder(deepcopy(cache), steps)
    more = tiny_tokens(len(prompt), steps, seed=3).to(device)
    for t in range(steps):
        found = decoder.step(more[:, t : t + 1]).clone()
        expected = model(more[:, t : t + 1], past_key_values=cache).logits
        assert relative_rms(found, expected) <= LIMIT, t
    return decoder


@pytest.mark.parametrize("name", FIXED)
@pytest.mark.parametrize("length", [1, 4, 20])
def test_steps_are_those_of_the_growing_cache(name, length, device):
    """Prompts shorter and longer than the window, steps that turn the ring round."""
    compare(tiny_hybrid(LAYER_SPECS[name]).to(device), tiny_tokens(2, length), 14)


@pytest.mark.parametrize(
    "name", ["streaming", "window", "gla_sinks_and_bias", "gsa", "hgrn2_mix_by_head"]
)
@pytest.mark.parametrize("side", ["left", "right"])
def test_padded_prompts(name, side, device):
    mask = torch.ones(3, 12, dtype=torch.long)
    mask[1, slice(0, 7) if side == "left" else slice(5, 12)] = 0
    compare(tiny_hybrid(LAYER_SPECS[name]).to(device), tiny_tokens(3, 12), 9, mask)


@pytest.mark.parametrize("name", ["gla", "hgrn2_mix_by_head", "streaming", "window", "gsa"])
@pytest.mark.usefixtures("fused")
def test_by_triton(name, device):
    """The whole step on Triton's kernels, which on a GPU is recorded and replayed."""
    model = tiny_hybrid(LAYER_SPECS[name], layers=(1,)).to(device)
    decoder = compare(model, tiny_tokens(2, 9), 5)
    assert (decoder.graph is not None) == (device == "cuda")


def test_nothing_is_allocated_anew():
    """What a step changes stays where it is, so that a recorded step can be replayed."""
    model = tiny_hybrid(LAYER_SPECS["gla_sinks_and_bias"])
    cache = model(tiny_tokens(2, 9), use_cache=True).past_key_values
    decoder = model.fixed_decoder(cache, 8)
    held = [decoder.positions, *decoder.cache.tensors()]
    places = [x.data_ptr() for x in held]
    for t in range(8):
        decoder.step(tiny_tokens(2, 8)[:, t : t + 1])
    assert [x.data_ptr() for x in (decoder.positions, *decoder.cache.tensors())] == places


def test_what_cannot_be_fixed_is_refused():
    model = tiny_hybrid(LAYER_SPECS["local"])
    cache = model(tiny_tokens(1, 9), use_cache=True).past_key_values
    with pytest.raises(ValueError, match="local have no fixed-size cache"):
        model.fixed_decoder(cache, 4)
    with pytest.raises(ValueError, match="read the prompt"):
        model.fixed_decoder(HybridCache(model.config), 4)


def test_no_more_steps_than_there_is_room_for():
    model = tiny_hybrid(LAYER_SPECS["streaming"])
    decoder = compare(model, tiny_tokens(1, 5), 2)
    with pytest.raises(ValueError, match="token"):
        decoder.step(tiny_tokens(1, 1))
