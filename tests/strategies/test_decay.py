"""The fitted decay: a head's state forgets at the rate at which its attention looks back."""

import pytest
import torch
from tiny import LAYER_SPECS, LAYERS, tiny_hybrid, tiny_tokens

from layerwright.tasks.passes.fitting import convert_in_place
from layerwright.tasks.strategies.fitting.decay import LAST_KEYS, LAST_QUERIES
from layerwright.tasks.strategies.gated_recurrence import GatedRecurrence
from layerwright.tasks.strategies.keep import Keep
from layerwright.tasks.strategies.specs import Assignment

ROWS = tiny_tokens(3, 80)
SINKS, WINDOW = 2, 6


@torch.no_grad()
def mean_far_distance(model, layer: int) -> torch.Tensor:
    """Straight from the attention matrix: (G,), G = 2 groups of 3 heads."""
    x, placement = model.model.prepare(ROWS)
    x = model.model.run_layers(x, placement, 0, layer)
    block = model.model.layers[layer]
    q, k, _ = block.self_attn.project(block.input_layernorm(x), placement.rotary)
    k = k.repeat_interleave(3, dim=1)
    causal = torch.ones(80, 80).tril().bool()
    scores = (q @ k.mT / 8**0.5).masked_fill(~causal, -torch.inf)
    attention = scores.softmax(-1)[:, :, -LAST_QUERIES:].double()
    i, j = torch.arange(80)[-LAST_QUERIES:, None], torch.arange(80)
    far = attention * ((i - j >= WINDOW) & (j >= SINKS))
    mass, moment = (t.sum((0, 2, 3)).view(2, 3).sum(1) for t in (far, far * (i - j)))
    return moment / mass


@torch.no_grad()
@pytest.mark.parametrize("gate", ["gla", "hgrn2", "gsa"])
def test_the_rate_is_one_over_the_mean_distance_of_far_attention(gate):
    strategy = GatedRecurrence(gate=gate, window=WINDOW, sinks=SINKS, slots=5, decay="statistics")
    model = tiny_hybrid(LAYER_SPECS["full"])
    wanted = mean_far_distance(model, 2)
    parts = [Assignment(i, i + 1, strategy if i == 2 else Keep()) for i in range(LAYERS)]
    tensors = convert_in_place(model, parts, lambda: ROWS)
    (name,) = tensors
    assert name == "model.layers.2.self_attn.decay_bias"
    assert tensors[name].shape == (2, 5 if gate == "gsa" else 8)
    assert model.get_parameter(name).equal(tensors[name])
    block = model.model.layers[2]
    x, placement = model.model.prepare(ROWS)
    x = model.model.run_layers(x, placement, 0, 2)
    k = block.self_attn.heads(block.input_layernorm(x))[1][:, :, -LAST_KEYS:]
    rate = -block.self_attn.log_decay(k).double().mean((0, 2, 3))
    assert torch.allclose(1 / rate, wanted, rtol=1e-3)
    assert model(ROWS).logits.isfinite().all()


@torch.no_grad()
def test_a_head_that_looks_at_nothing_far_keeps_its_gate():
    strategy = GatedRecurrence(window=1000, decay="statistics")
    model = tiny_hybrid(LAYER_SPECS["full"])
    parts = [Assignment(0, 1, strategy), *(Assignment(i, i + 1, Keep()) for i in range(1, LAYERS))]
    (bias,) = convert_in_place(model, parts, lambda: ROWS).values()
    assert not bias.any()


def test_the_papers_decay_needs_no_text():
    assert not GatedRecurrence().fits
    assert GatedRecurrence().layer_spec(LAYER_SPECS["full"])["mixer"]["decay_bias"] is False
