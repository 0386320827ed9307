"""The gated recurrence mixer against its paper's formulas, and what its cache holds.

What it shares with every other mixer is in test_contracts.py.
"""

import pytest
import torch
import torch.nn.functional as F
from facts import says
from tiny import LAYER_SPECS, LAYERS, tiny_hybrid, tiny_llama_config, tiny_tokens
from tolerance import SAME_MODEL, relative_rms

from layerwright.tasks.hybrid.cache import HybridCache, predicted_kv_bytes
from layerwright.tasks.hybrid.configuration import FULL_LAYER
from layerwright.tasks.hybrid.families import from_base_config
from layerwright.tasks.strategies.gated_recurrence import GatedRecurrence

GATED = [name for name, spec in LAYER_SPECS.items() if spec["mixer"].get("gate")]
LIMIT = SAME_MODEL[torch.float32]


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


def spec_of(row: str, /, **options) -> dict:
    return {"mixer": LAYER_SPECS[row]["mixer"] | options}


def mixer_of(spec: dict, **overrides):
    """The mixer of layer 0 in fp64 with a random decay bias, its input and its placement."""
    model = tiny_hybrid(spec, layers=(0,), **overrides).double()
    hidden, placement = model.model.prepare(tiny_tokens(2, 20))
    layer = model.model.layers[0]
    if layer.self_attn.decay_bias is not None:
        layer.self_attn.decay_bias.normal_(generator=torch.Generator().manual_seed(0))
    return layer.self_attn, layer.input_layernorm(hidden), placement


def by_the_formulas(mixer, hidden: torch.Tensor) -> torch.Tensor:
    """y (B, H, T, d), a token and a query head at a time, everything repeated to the heads."""
    q, k, v = mixer.heads(hidden)
    group = q.shape[1] // k.shape[1]
    bias = 0 if mixer.decay_bias is None else mixer.decay_bias[:, None]
    logits = k
    if mixer.spec["gate"] == "gsa":
        d, m = k.shape[-1], mixer.spec["slots"]
        pools = [slice(i * d // m, -(-(i + 1) * d // m)) for i in range(m)]
        logits = torch.stack([k[..., pool].mean(-1) for pool in pools], dim=-1)
    gate = torch.sigmoid(logits + bias)
    out = torch.zeros_like(q)
    for b, h in torch.cartesian_prod(*map(torch.arange, q.shape[:2])).tolist():
        queries, keys, values, gates = q[b, h], *(x[b, h // group] for x in (k, v, gate))
        state = torch.zeros(gates.shape[-1], v.shape[-1], dtype=q.dtype)
        slot_keys = torch.zeros(gates.shape[-1], k.shape[-1], dtype=q.dtype)
        for t, query in enumerate(queries):
            if mixer.spec["gate"] == "gla":
                decay = gates[t] ** (1 / 16)
                state = decay[:, None] * state + torch.outer(keys[t].softmax(-1), values[t])
                out[b, h, t] = query.softmax(-1) @ state
            elif mixer.spec["gate"] == "hgrn2":
                decay = gates[t]
                state = decay[:, None] * state + torch.outer(1 - decay, values[t])
                out[b, h, t] = query.softmax(-1) @ state
            else:
                decay = gates[t] ** (1 / 16)
                slot_keys = decay[:, None] * slot_keys + torch.outer(1 - decay, keys[t])
                state = decay[:, None] * state + torch.outer(1 - decay, values[t])
                out[b, h, t] = (slot_keys @ query).softmax(-1) @ state
    return out


@pytest.mark.parametrize("query_key_norm", [False, True])
@pytest.mark.parametrize("decay_bias", [False, True])
@pytest.mark.parametrize("gate", ["gla", "hgrn2", "gsa"])
def test_the_layer_is_the_papers_formulas(gate, decay_bias, query_key_norm):
    """alpha and beta are told apart, and normed keys without rotation feed gate and state."""
    spec = spec_of(gate, alpha=0.7, beta=0.2, decay_bias=decay_bias)
    mixer, hidden, placement = mixer_of(spec)
    if query_key_norm:
        mixer.q_norm, mixer.k_norm = (torch.nn.RMSNorm(8).double() for _ in "qk")
    q, k, v = mixer.project(hidden, placement.rotary)
    k, v = (x.repeat_interleave(3, dim=1) for x in (k, v))
    i = torch.arange(20)
    near = (i[:, None] >= i) & (i[:, None] - i < spec["mixer"]["window"])
    window = F.scaled_dot_product_attention(q, k, v, attn_mask=near)
    mixed = 0.7 * by_the_formulas(mixer, hidden) + 0.2 * window
    expected = mixer.o_proj(mixed.transpose(1, 2).flatten(2))
    assert relative_rms(mixer(hidden, placement), expected) <= SAME_MODEL[torch.float64]


@pytest.mark.parametrize("gate", ["gla", "hgrn2", "gsa"])
def test_without_the_state_it_is_streaming_attention(gate):
    ids = tiny_tokens(2, 30)
    gated = tiny_hybrid(spec_of(gate, alpha=0.0, beta=1.0, window=6, sinks=2))
    streaming = tiny_hybrid(LAYER_SPECS["streaming"])
    assert relative_rms(gated(ids).logits, streaming(ids).logits) <= LIMIT


@pytest.mark.parametrize(("alpha", "remembered"), [(0.5, True), (0.0, False)])
def test_what_left_the_window_is_known_from_the_state_alone(alpha, remembered):
    ids = tiny_tokens(1, 30)
    other = ids.clone()
    other[0, 3] += 1
    model = tiny_hybrid(spec_of("gla", alpha=alpha), layers=(0,))
    x, placement = model.model.prepare(ids)
    y = model.model.embed_tokens(other)
    last, changed = (model.model.run_layers(h, placement, 0, 1)[:, -1] for h in (x, y))
    assert last.equal(changed) != remembered


@pytest.mark.parametrize("gate", ["gla", "hgrn2", "gsa"])
def test_a_decay_bias_changes_the_answer_the_same_with_and_without_a_cache(gate):
    ids = tiny_tokens(2, 30)
    plain = tiny_hybrid(spec_of(gate))(ids).logits
    model = tiny_hybrid(spec_of(gate, decay_bias=True))
    assert model(ids).logits.equal(plain)  # it starts at zero
    for layer in (0, 1, 3):
        model.model.layers[layer].self_attn.decay_bias.normal_()
    whole = model(ids).logits
    assert relative_rms(whole, plain) > 1e-3
    cache = model(ids[:, :20], use_cache=True).past_key_values
    assert relative_rms(model(ids[:, 20:], past_key_values=cache).logits, whole[:, 20:]) <= LIMIT


def test_a_decay_bias_is_shared_with_a_donor_that_has_one_of_that_shape():
    model = tiny_hybrid(LAYER_SPECS["gla_sinks_and_bias"])
    model.set_layer_spec(2, spec_of("gla", decay_bias=True))
    fresh = model.model.layers[2].self_attn.decay_bias
    assert fresh.shape == (2, 8)
    assert not fresh.any()
    given = model.model.layers[0].self_attn.decay_bias
    model.set_layer_spec(0, spec_of("hgrn2", decay_bias=True))
    assert model.model.layers[0].self_attn.decay_bias is given
    model.set_layer_spec(0, spec_of("gsa", decay_bias=True))
    assert model.model.layers[0].self_attn.decay_bias.shape == (2, 5)
    model.set_layer_spec(0, spec_of("gla"))
    assert "decay_bias" not in model.model.layers[0].self_attn.state_dict()


@pytest.mark.parametrize("name", GATED)
def test_memory_does_not_grow_and_counts_the_state(name):
    spec = LAYER_SPECS[name]["mixer"]
    numbers = 2 * 8 * spec["slots"] if spec["gate"] == "gsa" else 8 * 8
    slots = spec["sinks"] + spec["window"] - 1
    expected = LAYERS * 2 * (slots * 2 * 2 * 8 * 4 + 2 * numbers * 4)
    model = tiny_hybrid(LAYER_SPECS[name], layers=tuple(range(LAYERS)))
    for tokens in (100, 300):
        cache = model(tiny_tokens(2, tokens), use_cache=True).past_key_values
        assert cache.nbytes() == expected
        assert predicted_kv_bytes(model.config, tokens, 2, 4) == expected
    assert cache.get_seq_length() == 300
    assert [layer.get_seq_length() for layer in cache.layers] == [300] * LAYERS


@pytest.mark.parametrize(("dtype", "bits"), [(torch.bfloat16, 32), (torch.float64, 64)])
@pytest.mark.parametrize("name", GATED)
def test_states_are_never_below_fp32(name, dtype, bits):
    model = tiny_hybrid(LAYER_SPECS[name], layers=tuple(range(LAYERS))).to(dtype)
    cache = model(tiny_tokens(2, 20), use_cache=True).past_key_values
    layer = cache.layers[0]
    states = [layer.state, layer.slot_keys] if "gsa" in name else [layer.state]
    assert all(torch.finfo(state.dtype).bits == bits for state in states)
    assert cache.nbytes() == predicted_kv_bytes(model.config, 20, 2, dtype.itemsize)


@pytest.mark.parametrize("name", GATED)
def test_the_state_is_fp32_exact_below_a_bf16_model(name):
    """Chunks and single tokens leave the state that one pass leaves, to fp32's rounding."""
    model = tiny_hybrid(LAYER_SPECS[name], layers=(0,)).bfloat16()
    ids = tiny_tokens(2, 60)
    whole, stepwise = HybridCache(model.config), HybridCache(model.config)
    model(ids, past_key_values=whole)
    for token in ids.split(1, dim=1):
        model(token, past_key_values=stepwise)
    assert relative_rms(stepwise.layers[0].state, whole.layers[0].state) <= LIMIT


@pytest.mark.parametrize("gate", ["gla", "gsa"])
def test_it_cannot_be_rolled_back(gate):
    model = tiny_hybrid(spec_of(gate))
    assert model.config.capabilities["stateful"]
    assert not model.config.capabilities["crop"]
    ids = tiny_tokens(1, 20)
    cache = model(ids, use_cache=True).past_key_values
    with pytest.raises(RuntimeError, match=says("layers [0, 1, 3]")):
        cache.crop(-1)
    with pytest.raises(RuntimeError, match="cannot be cropped"):
        cache.layers[0].crop(-1)
    with pytest.raises(RuntimeError, match="crop: true"):
        model.generate(ids, prompt_lookup_num_tokens=3, max_new_tokens=30, do_sample=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gate": "mamba"}, r"gate must be one of \['gla', 'gsa', 'hgrn2'\]"),
        ({"slots": 5}, "gate 'gla' takes"),
        ({"gate": "gsa"}, "gate 'gsa' takes .*'slots'"),
        ({"gate": "gsa", "slots": 0}, "slots must be a whole number >= 1"),
        ({"window": 0}, "window must be a whole number >= 1"),
        ({"sinks": -1}, "sinks must be a whole number >= 0"),
        ({"alpha": float("nan")}, "alpha must be a finite number"),
        ({"beta": True}, "beta must be a finite number"),
        ({"decay_bias": 1}, "decay_bias must be true or false"),
    ],
)
def test_specs_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        from_base_config(tiny_llama_config(), [spec_of("gla", **options)] * LAYERS)


@pytest.mark.parametrize("gate", ["gla", "hgrn2", "gsa"])
def test_the_strategy_gives_the_papers_mixer(gate):
    linear = {"mixer": {"kind": "full"}, "feed_forward": {"kind": "linear"}}
    spec = GatedRecurrence(gate=gate).layer_spec(linear)
    assert spec["feed_forward"] == {"kind": "linear"}
    assert spec["mixer"] == {
        "kind": "gated_recurrence",
        "gate": gate,
        "window": 64,
        "sinks": 0,
        "alpha": 0.5,
        "beta": 0.5,
        "decay_bias": False,
        **({"slots": 64} if gate == "gsa" else {}),
    }
    assert GatedRecurrence(gate=gate, sinks=4).reach_tokens() == 68


@pytest.mark.parametrize("gate", ["gla", "gsa"])
def test_the_strategy_predicts_the_bytes_of_a_real_cache(gate):
    strategy = GatedRecurrence(gate=gate, window=5, slots=3)
    model = tiny_hybrid(strategy.layer_spec(FULL_LAYER), layers=tuple(range(LAYERS)))
    cache = model(tiny_tokens(3, 30), use_cache=True).past_key_values
    base = from_base_config(tiny_llama_config())
    assert cache.nbytes() == LAYERS * strategy.kv_bytes(base, 30, element_bytes=4, batch=3)


@pytest.mark.parametrize("kind", ["layer", "head"])
def test_a_learned_mix_starts_at_the_shares_and_answers_for_them(kind):
    ids = tiny_tokens(1, 20)
    shares = {"alpha": 0.7, "beta": 0.3}
    fixed = tiny_hybrid({"mixer": LAYER_SPECS["gla"]["mixer"] | shares})
    learned = tiny_hybrid({"mixer": LAYER_SPECS["gla"]["mixer"] | shares | {"learned_mix": kind}})
    before = fixed(ids).logits
    assert relative_rms(learned(ids).logits, before) <= SAME_MODEL[torch.float32]
    mixes = [p for name, p in learned.named_parameters() if name.endswith(".mix")]
    assert [tuple(mix.shape) for mix in mixes] == [(2, 1 if kind == "layer" else 6)] * 3
    with torch.no_grad():
        for mix in mixes:
            mix[0], mix[1] = 0.2, 0.9
    other = {"alpha": 0.2, "beta": 0.9}
    expected = tiny_hybrid({"mixer": LAYER_SPECS["gla"]["mixer"] | other})(ids).logits
    assert relative_rms(learned(ids).logits, expected) <= SAME_MODEL[torch.float32]
    assert relative_rms(before, expected) > 0.01


def test_a_learned_mix_of_another_kind_is_refused():
    with pytest.raises(ValueError, match="learned_mix"):
        tiny_hybrid({"mixer": LAYER_SPECS["gla"]["mixer"] | {"learned_mix": "channel"}})
