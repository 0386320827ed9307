"""The local mixer against attention written out, and what its cache and its spans do.

What it shares with every other mixer is in test_contracts.py.
"""

import pytest
import torch
from tiny import LAYER_SPECS, LAYERS, tiny_hybrid, tiny_llama_config, tiny_tokens
from tolerance import SAME_MODEL, relative_rms
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from layerwright.tasks.hybrid.cache import HybridCache, predicted_kv_bytes
from layerwright.tasks.hybrid.families import from_base_config
from layerwright.tasks.hybrid.mixers.local import LocalAttention
from layerwright.tasks.hybrid.mixers.local_cache import FAR_STEP

LOCAL = [name for name, spec in LAYER_SPECS.items() if spec["mixer"]["kind"] == "local"]
LIMIT = SAME_MODEL[torch.float32]


def spec_of(row: str, /, **options) -> dict:
    return {"mixer": LAYER_SPECS[row]["mixer"] | options}


def mixer_of(spec: dict, tokens: int = 30):
    """The mixer of layer 0 in fp64, its input (2, T, D) and its placement."""
    model = tiny_hybrid(spec, layers=(0,)).double()
    hidden, placement = model.model.prepare(tiny_tokens(2, tokens))
    layer = model.model.layers[0]
    return layer.self_attn, layer.input_layernorm(hidden), placement


def written_out(mixer: LocalAttention, hidden: torch.Tensor, placement) -> tuple:
    """Output (B, T, D), query by query and head by head; and the share that widened."""
    spec, (q, plain, v) = mixer.spec, mixer.heads(hidden)
    q, k = apply_rotary_pos_emb(q, plain, *placement.rotary)
    out = torch.zeros_like(q)
    group, size, sinks = q.shape[1] // k.shape[1], spec.get("block", 1), spec["sinks"]
    corrected, widened, ramp = spec["correction"] == "block_mean", [], spec.get("ramp")

    def block_key(b, g, block):
        if spec["key_mean"] == "rotated":
            return k[b, g, block].mean(0)
        middle = torch.tensor([[sum(block) / len(block)]])
        mean = plain[b, g, block].mean(0)[None, None, None]
        return apply_rotary_pos_emb(mean, mean, *placement.rotary_at(middle))[0][0, 0, 0]

    for b, h, i in torch.cartesian_prod(*map(torch.arange, q.shape[:3])).tolist():
        g = h // group
        z = spec["spans"][g] if isinstance(spec["spans"], list) else spec["spans"]
        edge = max(i - z + 1, 0) // size * size
        exact = [j for j in range(i + 1) if j >= edge or j < sinks]
        far = [[j for j in range(s, s + size) if j >= sinks] for s in range(0, edge, size)]
        far = [block for block in far if block] if corrected else []
        query = q[b, h, i] / q.shape[-1] ** 0.5
        weights = [(query @ k[b, g, j]).exp() for j in exact]
        if ramp:
            z = mixer.span[g].clamp(0, 1) * (z - ramp)
            soft = [1 if j < sinks else ((ramp + z - i + j) / ramp).clamp(0, 1) for j in exact]
            weights = [w * m for w, m in zip(weights, soft, strict=True)]
        blocks = [len(block) * (query @ block_key(b, g, block)).exp() for block in far]
        if spec.get("widen"):
            widened.append(float(sum(weights) / sum(weights + blocks) < spec["widen"]))
            if widened[-1]:
                exact, far, blocks = range(i + 1), [], []
                weights = [(query @ k[b, g, j]).exp() for j in exact]
        values = [v[b, g, j] for j in exact] + [v[b, g, block].mean(0) for block in far]
        shares = torch.stack([*weights, *blocks])
        out[b, h, i] = (shares[:, None] * torch.stack(values)).sum(0) / shares.sum()
    return mixer.o_proj(out.transpose(1, 2).flatten(2)), widened


@torch.no_grad()
@pytest.mark.parametrize("row", LOCAL)
def test_output_is_what_the_spec_says(row):
    mixer, hidden, placement = mixer_of(LAYER_SPECS[row])
    if mixer.span is not None:
        mixer.span.copy_(torch.tensor([0.3, 0.8]))
    expected, widened = written_out(mixer, hidden, placement)
    # The tables of middles are rounded as the model's own are, to fp32.
    limit = 1e-6 if mixer.spec.get("key_mean") == "unrotated" else 1e-12
    assert relative_rms(mixer(hidden, placement), expected) <= limit
    if widened:
        assert 0.05 < sum(widened) / len(widened) < 0.95  # both ways were gone


@torch.no_grad()
@pytest.mark.parametrize("row", LOCAL)
def test_the_reference_operator_gives_the_same_model(row, monkeypatch):
    model, ids = tiny_hybrid(LAYER_SPECS[row]), tiny_tokens(2, 40)
    blockwise = model(ids).logits
    monkeypatch.setenv("LAYERWRIGHT_KERNELS", "reference")
    assert relative_rms(model(ids).logits, blockwise) <= LIMIT


@torch.no_grad()
def test_a_plain_span_is_streaming_attention():
    ids = tiny_tokens(2, 40)
    local = tiny_hybrid({"mixer": LAYER_SPECS["local"]["mixer"] | {"spans": [6, 6]}})
    assert relative_rms(local(ids).logits, tiny_hybrid(LAYER_SPECS["streaming"])(ids).logits) == 0


@torch.no_grad()
@pytest.mark.parametrize("widen", [None, 0.7])
def test_far_keys_are_kept_only_for_widening(widen):
    """Long enough that the room for them grows; nothing but it depends on the context."""
    model, tokens = tiny_hybrid(spec_of("local_widened", widen=widen)), 2 * FAR_STEP + 40
    ids = tiny_tokens(2, tokens)
    cache = HybridCache(model.config)
    pieces = [model(ids[:, :100], past_key_values=cache).logits]
    for step in range(100, tokens):
        pieces.append(model(ids[:, step : step + 1], past_key_values=cache).logits)
        predicted = predicted_kv_bytes(model.config, step + 1, 2, 4)
        assert cache.nbytes() == predicted
    assert relative_rms(torch.cat(pieces, 1), model(ids).logits) <= LIMIT
    rings = cache.layers[0].windows
    assert [ring.far is not None for ring in rings] == [widen is not None] * 2
    assert [ring.keys.shape[1:3] for ring in rings] == [(1, 2 + 5), (1, 2 + 8)]


@torch.no_grad()
def test_short_spans_take_less_memory():
    base = tiny_llama_config()

    def bytes_of(spans, **options) -> int:
        config = from_base_config(base, [spec_of("local", spans=spans, **options)] * LAYERS)
        return predicted_kv_bytes(config, 4096, 1, 2)

    # 4 layers, 2 heads of 8, keys and values of 2 bytes; 2 sinks and the span less the query's own
    assert bytes_of([1000, 10]) == 4 * (1001 + 11) * 2 * 8 * 2
    assert bytes_of([1000, 10]) < bytes_of(1000) * 0.52


@torch.no_grad()
@pytest.mark.parametrize("row", ["local_corrected", "local_widened", "local_corrected_spans"])
def test_positions_may_have_gaps(row):
    """Blocks are made of positions, so they may hold few tokens, or none, and differ by row."""
    model, ids = tiny_hybrid(LAYER_SPECS[row]), tiny_tokens(2, 30)
    positions = torch.stack([torch.arange(30) * 2, torch.arange(30) + 5])
    positions[1, 15:] += 40
    whole = model(ids, position_ids=positions).logits
    cache, pieces = None, []
    for start, stop in ((0, 11), (11, 12), (12, 30)):
        step = model(
            ids[:, start:stop],
            position_ids=positions[:, start:stop],
            past_key_values=cache,
            use_cache=True,
        )
        cache = step.past_key_values
        pieces.append(step.logits)
    assert relative_rms(torch.cat(pieces, 1), whole) <= LIMIT
    for row in range(2):
        alone = model(ids[row : row + 1], position_ids=positions[row : row + 1]).logits
        assert relative_rms(whole[row], alone[0]) <= LIMIT


def test_the_soft_span_is_trained_and_stays_within_the_spec():
    model, ids = tiny_hybrid(LAYER_SPECS["local_soft"], layers=(0,)), tiny_tokens(2, 30)
    mixer = model.model.layers[0].self_attn
    assert "model.layers.0.self_attn.span" in model.state_dict()
    assert mixer.soft_spans().tolist() == [4, 1]  # spans 9 and 6 less the ramp of 5
    model(ids, labels=ids).loss.backward()
    assert (mixer.span.grad != 0).all()
    before = model(ids).logits
    with torch.no_grad():
        mixer.span.copy_(torch.tensor([7.0, -3.0]))
    assert mixer.soft_spans().tolist() == [4, 0]
    assert relative_rms(model(ids).logits, before) > 1e-3  # the second head's span shrank
    mixer.span.grad = None
    mixer.soft_spans().sum().backward()  # the penalty brings a span back from beyond either end
    assert mixer.span.grad.tolist() == [4, 1]


def test_a_soft_span_survives_the_layer_s_own_spec_only():
    model = tiny_hybrid(LAYER_SPECS["local_soft"], layers=(0,))
    with torch.no_grad():
        model.model.layers[0].self_attn.span.fill_(0.5)
    model.set_layer_spec(0, LAYER_SPECS["local_soft"])
    assert model.model.layers[0].self_attn.span.tolist() == [0.5, 0.5]
    model.set_layer_spec(0, spec_of("local_soft", ramp=2))
    assert model.model.layers[0].self_attn.span.tolist() == [1, 1]
    model.set_layer_spec(0, LAYER_SPECS["full"])
    model.set_layer_spec(0, LAYER_SPECS["local"])
    assert model.model.layers[0].self_attn.span is None


@pytest.mark.parametrize(("row", "reach"), [("local", 8), ("local_spans", 9)])
def test_reach_is_sinks_and_the_widest_span(row, reach):
    assert LocalAttention.reach_tokens(LAYER_SPECS[row]["mixer"]) == reach


def test_reach_counts_the_block_below_the_span():
    assert LocalAttention.reach_tokens(LAYER_SPECS["local_widened"]["mixer"]) == 2 + 6 + 3


@torch.no_grad()
def test_the_cache_cannot_be_cropped():
    model = tiny_hybrid(LAYER_SPECS["local_corrected"])
    assert not model.config.capabilities["crop"]
    cache = model(tiny_tokens(1, 12), use_cache=True).past_key_values
    with pytest.raises(RuntimeError, match="cannot be cropped"):
        cache.crop(-1)
    with pytest.raises(RuntimeError, match="cannot be cropped"):
        cache.layers[0].crop(-1)


@pytest.mark.parametrize(
    ("row", "options", "match"),
    [
        ("local", {"spans": 0}, "spans must be a whole number >= 1"),
        ("local", {"spans": [4, True]}, "spans must be a whole number >= 1, got True"),
        ("local", {"spans": []}, "a list with one for each"),
        ("local", {"spans": [4, 5, 6]}, "3 spans for 2 key/value heads"),
        ("local", {"sinks": -1}, "sinks must be a whole number >= 0"),
        ("local", {"correction": "linear"}, "correction must be one of"),
        ("local", {"widen": 0.9}, r"correction 'none' takes .*'ramp'"),
        ("local", {"ramp": 7}, "ramp must be between 1 and the smallest span"),
        ("local", {"ramp": 0}, "ramp must be between 1 and the smallest span"),
        ("local_corrected", {"ramp": 2}, "correction 'block_mean' takes"),
        ("local_corrected", {"block": 0}, "block must be a whole number >= 1"),
        ("local_corrected", {"key_mean": "half"}, "key_mean must be one of"),
        ("local_corrected", {"widen": 1.0}, "widen must be a share between 0 and 1"),
    ],
)
def test_impossible_specs_are_refused(row, options, match):
    with pytest.raises(ValueError, match=match):
        tiny_hybrid(spec_of(row, **options))
