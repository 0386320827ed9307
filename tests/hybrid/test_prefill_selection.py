"""Layers selected while a prompt is read: against plain Llamas, against a selection made before.

Cached is not uncached here, by definition: single tokens see trimmed layers, a pass without a cache
does not. So the promises of test_contracts.py are made to other oracles.
"""

import pytest
import torch
from facts import says
from peft import LoraConfig, get_peft_model
from tiny import LAYERS, tiny_hybrid, tiny_llama, tiny_tokens
from tolerance import SAME_MODEL, relative_rms
from transformers import DynamicCache

from layerwright.tasks.evaluate.metrics.kv_cache import zero_filled_cache
from layerwright.tasks.hybrid.cache import HybridCache, predicted_kv_bytes
from layerwright.tasks.hybrid.configuration import FULL_LAYER, HybridConfig
from layerwright.tasks.hybrid.modeling import HybridForCausalLM

LIMIT = SAME_MODEL[torch.float32]
SINKS, WINDOW, LAST = 2, 6, 5
LENGTHS = (33, 19, 26)  # of the rows of a padded batch
COMPETING = (0, 1, 3)
SLOT = 2 * 2 * 8 * 4  # bytes of a token's key and value in a layer, in fp32


def spec_of(full_layers: int | None = 1, **options) -> dict:
    mixer = {"full_layers": full_layers, "sinks": SINKS, "window": WINDOW, "last_queries": LAST}
    return {"mixer": {"kind": "prefill_selection", **mixer, **options}}


@pytest.fixture(autouse=True)
def no_gradients(request):
    with torch.set_grad_enabled("gradient" in request.node.name):
        yield


@pytest.fixture(scope="module")
def model():
    """One full cache for three layers; layer 2 stands outside."""
    return tiny_hybrid(spec_of(), COMPETING)


def batch_of(side: str | None) -> tuple[torch.Tensor, torch.Tensor | None, list[torch.Tensor]]:
    """Token ids (B, T), attention mask (B, T) or None, and each row's real tokens."""
    width = max(LENGTHS)
    ids = tiny_tokens(len(LENGTHS), width)
    if side is None:
        return ids, None, list(ids)
    mask = torch.zeros_like(ids)
    for row, length in enumerate(LENGTHS):
        mask[row, slice(width - length, None) if side == "left" else slice(length)] = 1
    real = [ids[row, mask[row] == 1] for row in range(len(ids))]
    return ids.masked_fill(mask == 0, 258), mask, real


def lazy_ratios(prompt: torch.Tensor) -> list[float]:
    """Lazy ratio of every layer, summed from the attention matrices of the plain Llama."""
    base = tiny_llama()
    base.set_attn_implementation("eager")
    attentions = base(prompt[None], output_attentions=True).attentions
    T = len(prompt)
    ratios = []
    for attention_1HTT in attentions:
        mass = [
            attention_1HTT[0, :, q, [k for k in range(q + 1) if k < SINKS or q - k < WINDOW]].sum(
                -1
            )
            for q in range(T - LAST, T)
        ]
        ratios.append(torch.stack(mass).double().mean().item())
    return ratios


def laziest(prompt: torch.Tensor, full_layers: int, layers: tuple[int, ...]) -> tuple[int, ...]:
    ratios = lazy_ratios(prompt)
    ranked = sorted(layers, key=lambda layer: ratios[layer], reverse=True)
    return tuple(sorted(ranked[: len(layers) - full_layers]))


def oracle(
    prompt: torch.Tensor,
    more: torch.Tensor,
    trimmed: tuple[int, ...],
    dtype: torch.dtype = torch.float32,
) -> torch.Tensor:
    """Logits (n, V) of the tokens `more` after a prompt, from the plain Llama.

    Its own cache, whose `trimmed` layers are cut by slicing before every token.
    """
    base, cache = tiny_llama().to(dtype), DynamicCache()
    base(prompt[None], past_key_values=cache)
    logits = []
    for step, token in enumerate(more):
        for layer in (cache.layers[i] for i in trimmed):
            for name in ("keys", "values"):
                x = getattr(layer, name)
                recent = x[:, :, max(x.shape[2] - (WINDOW - 1), SINKS) :]
                setattr(layer, name, torch.cat([x[:, :, :SINKS], recent], dim=2))
        output = base(
            token.view(1, 1),
            position_ids=torch.tensor([[len(prompt) + step]]),
            attention_mask=torch.zeros(
                1, 1, 1, 1, dtype=dtype
            ),  # 4-D is taken as it is: all is visible
            past_key_values=cache,
        )
        logits.append(output.logits[0, -1])
    return torch.stack(logits)


def one_by_one(model, more: torch.Tensor, cache: HybridCache) -> torch.Tensor:
    """Logits (B, n, V) of tokens (B, n) fed singly."""
    steps = [model(more[:, i : i + 1], past_key_values=cache).logits for i in range(more.shape[1])]
    return torch.cat(steps, dim=1)


@pytest.mark.parametrize("full_layers", [0, 1, 2, 3, 7])
@pytest.mark.parametrize("side", [None, "left", "right"])
def test_decodes_as_a_llama_whose_cache_is_cut(side, full_layers):
    model = tiny_hybrid(spec_of(full_layers), COMPETING)
    ids, mask, prompts = batch_of(side)
    more = tiny_tokens(len(ids), 12, seed=1)
    cache = HybridCache(model.config)
    prefilled = model(ids, attention_mask=mask, past_key_values=cache).logits
    decoded = one_by_one(model, more, cache)
    for row, prompt in enumerate(prompts):
        trimmed = laziest(prompt, min(full_layers, 3), COMPETING)
        assert cache.selection[row] == trimmed
        real = slice(None) if mask is None else mask[row] == 1
        assert relative_rms(prefilled[row, real], tiny_llama()(prompt[None]).logits[0]) <= LIMIT
        assert relative_rms(decoded[row], oracle(prompt, more[row], trimmed)) <= LIMIT


def test_rows_decide_differently():
    """Else the tests above would say nothing of mixed batches."""
    model = tiny_hybrid(spec_of(2), (0, 1, 2, 3))
    cache = model(tiny_tokens(8, 40), use_cache=True).past_key_values
    assert len(set(cache.selection)) > 2


def test_the_far_past_is_gone_in_trimmed_layers_alone(model):
    """The oracle that keeps everything is another model: what is cut matters."""
    prompt, more = tiny_tokens(1, 40), tiny_tokens(1, 3, seed=1)
    cache = model(prompt, use_cache=True).past_key_values
    decoded = one_by_one(model, more, cache)[0]
    assert relative_rms(decoded, oracle(prompt[0], more[0], ())) > 100 * LIMIT
    assert [layer.get_seq_length() for layer in cache.layers] == [43] * 4
    lengths = [
        layer.trimmed.keys.shape[2]
        for i, layer in enumerate(cache.layers)
        if i in cache.selection[0]
    ]
    assert lengths == [SINKS + WINDOW - 1] * 2


@pytest.mark.parametrize("side", [None, "left", "right"])
def test_measured_is_the_same_selection_made_before(model, side):
    ids, mask, _ = batch_of(side)
    more = tiny_tokens(len(ids), 10, seed=1)
    measured = HybridCache(model.config)
    model(ids, attention_mask=mask, past_key_values=measured)
    static = HybridCache(model.config, selection=measured.selection)
    model(ids, attention_mask=mask, past_key_values=static)
    assert static.selection == measured.selection
    assert one_by_one(model, more, measured).equal(one_by_one(model, more, static))


def test_generates_what_the_same_selection_made_before_does(model):
    ids, mask, _ = batch_of("left")
    options = {"attention_mask": mask, "max_new_tokens": 14, "do_sample": False}
    measured = model.generate(ids, return_dict_in_generate=True, **options)
    selection = measured.past_key_values.selection
    static = HybridCache(model.config, selection=selection)
    assert model.generate(ids, past_key_values=static, **options).equal(measured.sequences)
    others = [tuple(i for i in COMPETING if i not in row) + row[:1] for row in selection]
    other = HybridCache(model.config, selection=others)
    assert not model.generate(ids, past_key_values=other, **options).equal(measured.sequences)


def test_generation_from_a_padded_batch_is_one_by_one(model):
    ids, mask, prompts = batch_of("left")
    options = {"max_new_tokens": 10, "do_sample": False, "return_dict_in_generate": True}
    batched = model.generate(ids, attention_mask=mask, **options)
    for row, prompt in enumerate(prompts):
        alone = model.generate(prompt[None], **options)
        assert batched.past_key_values.selection[row] == alone.past_key_values.selection[0]
        expected = alone.sequences[0, len(prompt) :]  # shorter where it ended by itself
        assert batched.sequences[row, ids.shape[1] :][: len(expected)].equal(expected)


def test_beam_search_from_a_padded_batch_is_one_by_one(model):
    ids, mask, prompts = batch_of("left")
    options = {"num_beams": 3, "max_new_tokens": 8, "do_sample": False, "min_new_tokens": 8}
    batched = model.generate(ids, attention_mask=mask, **options)
    for row, prompt in enumerate(prompts):
        alone = model.generate(prompt[None], **options)[0, len(prompt) :]
        assert batched[row, ids.shape[1] :].equal(alone)


def test_decisions_follow_rows(model):
    ids, mask, prompts = batch_of("left")
    rows = [2, 2, 0]
    more = tiny_tokens(6, 4, seed=2)
    cache = model(ids, attention_mask=mask, use_cache=True).past_key_values
    before = cache.selection
    cache.reorder_cache(torch.tensor([1, 2, 0]))
    assert cache.selection == [before[1], before[2], before[0]]
    cache.batch_select_indices(torch.tensor([1, 1, 2]))
    assert cache.selection == [before[row] for row in rows]
    cache.batch_repeat_interleave(2)
    assert cache.selection == [before[row] for row in rows for _ in range(2)]
    decoded = one_by_one(model, more, cache)
    for i, row in enumerate(row for row in rows for _ in range(2)):
        assert relative_rms(decoded[i], oracle(prompts[row], more[i], before[row])) <= LIMIT


def test_a_cache_can_be_used_again(model):
    first, second = tiny_tokens(3, 40), tiny_tokens(2, 30, seed=3)
    cache = model(first, use_cache=True).past_key_values
    cache.reset()
    assert (cache.nbytes(), cache.selection) == (0, [])
    model(second, past_key_values=cache)
    assert cache.selection == model(second, use_cache=True).past_key_values.selection


@pytest.mark.parametrize("full_layers", [0, 1, 2, 3, 4])
def test_memory_while_the_prompt_is_read(full_layers):
    """After each layer no more than P full layers are held, and a window for each other one.

    The keys and values of the layer in progress come on top, so P + 1 full layers at the most.
    """
    model = tiny_hybrid(spec_of(full_layers), (0, 1, 2, 3))
    cache, held = HybridCache(model.config), []
    for layer in model.model.layers:
        layer.register_forward_hook(lambda *_: held.append(cache.nbytes()))
    model(tiny_tokens(3, 200), past_key_values=cache)
    full, window = 3 * 200 * SLOT, 3 * (SINKS + WINDOW - 1) * SLOT
    expected = [
        min(done, full_layers) * full + max(done - full_layers, 0) * window
        for done in range(1, LAYERS + 1)
    ]
    assert held == expected
    assert max(held) <= (full_layers + 1) * full + LAYERS * window


@pytest.mark.parametrize("full_layers", [0, 1, 2, 5, None])
@pytest.mark.parametrize("side", [None, "left", "right"])
@pytest.mark.parametrize("length", [1, 4, 33])
def test_cache_bytes_are_as_predicted(side, full_layers, length):
    model = tiny_hybrid(spec_of(full_layers), COMPETING)
    ids, mask, _ = batch_of(side)
    ids = ids[:, -length:] if side == "left" else ids[:, :length]
    if mask is not None:
        mask = mask[:, -length:] if side == "left" else mask[:, :length]
    padded = mask is not None and not mask.all()
    cache = HybridCache(model.config)
    assert cache.nbytes() == 0
    model(ids, attention_mask=mask, past_key_values=cache)
    for step in range(9):
        predicted = predicted_kv_bytes(model.config, length + step, len(ids), 4, padded)
        assert cache.nbytes() == predicted
        model(tiny_tokens(len(ids), 1, seed=step), past_key_values=cache)
    if full_layers == 1 and not padded:
        cut = min(length + 8, SINKS + WINDOW - 1)
        assert predicted == len(ids) * SLOT * (2 * (length + 8) + 2 * cut)


def test_layers_given_zeros_hold_what_is_predicted(model):
    """As the metric of cache bytes fills them: alike in every layer, so the highest are trimmed."""
    cache = zero_filled_cache(model, 50)
    assert cache.selection == [(1, 3)]
    assert cache.nbytes() == predicted_kv_bytes(model.config, 50, 1, 4)


def test_of_equally_lazy_layers_the_highest_are_trimmed(model):
    """A prompt within sinks and window loses nothing: every ratio is exactly 1, padded or not."""
    ids = tiny_tokens(2, SINKS + WINDOW)
    mask = torch.ones_like(ids)
    mask[0, :3] = 0
    cache = model(ids, attention_mask=mask, use_cache=True).past_key_values
    assert cache.selection == [(1, 3), (1, 3)]


def test_without_a_cache_it_is_full_attention(model):
    ids, mask, _ = batch_of("left")
    full = tiny_hybrid(FULL_LAYER)
    assert model(ids, attention_mask=mask).logits.equal(full(ids, attention_mask=mask).logits)


def test_gradient_reaches_lora_in_every_layer():
    adapted = get_peft_model(
        tiny_hybrid(spec_of(), COMPETING),
        LoraConfig(target_modules=["q_proj", "v_proj"], init_lora_weights=False),
    )
    ids = tiny_tokens(2, 30)
    adapted(ids, labels=ids).loss.backward()
    gradients = [p.grad for p in adapted.parameters() if p.requires_grad]
    assert len(gradients) == LAYERS * 2 * 2
    assert all(g.isfinite().all() and g.abs().sum() > 0 for g in gradients)


def test_gradient_checkpointing_changes_nothing():
    ids = tiny_tokens(2, 30)
    gradients = []
    for checkpointing in (False, True):
        trained = tiny_hybrid(spec_of(), COMPETING).train()
        if checkpointing:
            trained.gradient_checkpointing_enable()
        trained(ids, labels=ids).loss.backward()
        gradients.append(trained.model.embed_tokens.weight.grad)
    assert relative_rms(*gradients) <= LIMIT


def test_bfloat16_stays_bfloat16():
    low = tiny_hybrid(spec_of(), COMPETING).bfloat16()
    ids, mask, prompts = batch_of("left")
    more = tiny_tokens(len(ids), 6, seed=1)
    cache = low(ids, attention_mask=mask, use_cache=True).past_key_values
    assert cache.nbytes() == predicted_kv_bytes(low.config, ids.shape[1], len(ids), 2, padded=True)
    logits = one_by_one(low, more, cache)
    assert logits.dtype == torch.bfloat16
    for row, prompt in enumerate(prompts):
        expected = oracle(prompt, more[row], cache.selection[row], torch.bfloat16)
        assert relative_rms(logits[row], expected) <= SAME_MODEL[torch.bfloat16]


def test_reloads(model, tmp_path):
    model.save_pretrained(tmp_path)
    config = HybridConfig.from_pretrained(tmp_path)
    assert config.layer_specs == model.config.layer_specs
    assert config.capabilities["mixers"] == ["full", "prefill_selection"]
    assert config.capabilities["crop"] is False
    again = HybridForCausalLM.from_pretrained(tmp_path).eval()
    ids = tiny_tokens(2, 30)
    options = {"max_new_tokens": 8, "do_sample": False}
    assert again.generate(ids, **options).equal(model.generate(ids, **options))


def test_several_tokens_after_the_prompt_are_refused(model):
    ids = tiny_tokens(2, 30)
    cache = model(ids, use_cache=True).past_key_values
    held, selection = cache.nbytes(), cache.selection
    with pytest.raises(RuntimeError, match=says("2 tokens", "prompt")):
        model(ids[:, :2], past_key_values=cache)
    assert (cache.nbytes(), cache.selection) == (held, selection)
    more = tiny_tokens(2, 3, seed=1)
    fresh = model(ids, use_cache=True).past_key_values
    assert one_by_one(model, more, cache).equal(one_by_one(model, more, fresh))
    refusals = {  # chunks of one token would look like decoding: refused before there is a cache
        "prefill_chunk_size": (1, ValueError, "whole prompt"),
        "prompt_lookup_num_tokens": (2, (RuntimeError, ValueError), r"token by token|crop"),
    }
    for option, (value, error, message) in refusals.items():
        options = {option: value, "max_new_tokens": 8, "do_sample": False}
        with pytest.raises(error, match=message):
            model.generate(ids[:1].repeat(1, 3), **options)


def test_the_refusal_comes_before_layers_outside_have_cached():
    model = tiny_hybrid(spec_of(), (2, 3))
    cache = model(tiny_tokens(1, 30), use_cache=True).past_key_values
    held = cache.nbytes()
    with pytest.raises(RuntimeError, match="prompt"):
        model(tiny_tokens(1, 5), past_key_values=cache)
    assert cache.nbytes() == held


def test_cropping_is_refused(model):
    cache = model(tiny_tokens(1, 30), use_cache=True).past_key_values
    with pytest.raises(RuntimeError, match=says("layers [0, 1, 3]")):
        cache.crop(-1)
    with pytest.raises(RuntimeError, match="cannot be cropped"):
        cache.layers[0].crop(-1)
