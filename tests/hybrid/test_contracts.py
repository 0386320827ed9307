"""What holds for every kind of layer: one parametrised test per promise of DESIGN.md.

Reload in a clean process is in test_export.py.
"""

from copy import deepcopy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny import LAYER_SPECS, tiny_hybrid, tiny_tokens
from tiny_families import CASES, tiny_case
from tolerance import SAME_MODEL, relative_rms

from layerwright.tasks.hybrid.cache import HybridCache, predicted_kv_bytes
from layerwright.tasks.hybrid.modeling import HybridForCausalLM

LIMIT = SAME_MODEL[torch.float32]
LENGTHS = (23, 9, 14)  # of the rows of a padded batch


@pytest.fixture(params=LAYER_SPECS, scope="module")
def model(request):
    """A Llama with each kind of layer."""
    return tiny_hybrid(LAYER_SPECS[request.param])


@pytest.fixture(params=CASES, ids=", ".join, scope="module")
def every(request):
    """Each kind of layer in one of the families, and each family with all kinds at once."""
    return tiny_case(*request.param)


@pytest.fixture(autouse=True)
def no_gradients(request):
    with torch.set_grad_enabled("gradient" in request.node.name):
        yield


def padded_batch(side: str) -> tuple[torch.Tensor, torch.Tensor, list[slice]]:
    """Token ids (B, T), attention mask (B, T) and the slice of each row's real tokens."""
    width = max(LENGTHS)
    ids = tiny_tokens(len(LENGTHS), width)
    starts = [width - n if side == "left" else 0 for n in LENGTHS]
    real = [slice(start, start + n) for start, n in zip(starts, LENGTHS, strict=True)]
    mask = torch.zeros_like(ids)
    for row, where in enumerate(real):
        mask[row, where] = 1
    return ids.masked_fill(mask == 0, 258), mask, real


def in_chunks(model, ids, sizes, mask=None) -> torch.Tensor:
    """Logits of `ids` fed in pieces through one cache."""
    logits, cache, start = [], None, 0
    for size in sizes:
        stop = start + size
        seen = None if mask is None else mask[:, :stop]
        output = model(
            ids[:, start:stop], attention_mask=seen, past_key_values=cache, use_cache=True
        )
        logits.append(output.logits)
        cache, start = output.past_key_values, stop
    assert start == ids.shape[1]
    return torch.cat(logits, dim=1)


def test_stepwise_is_one_shot(every):
    ids = tiny_tokens(2, 24)
    assert relative_rms(in_chunks(every, ids, [1] * 24), every(ids).logits) <= LIMIT


@pytest.mark.parametrize("sizes", [[13, 27], [1, 2, 30, 7], [25, 1, 1, 13]])
def test_chunked_prefill_is_one_prefill(model, sizes):
    ids = tiny_tokens(2, 40)
    assert relative_rms(in_chunks(model, ids, sizes), model(ids).logits) <= LIMIT


@pytest.mark.parametrize("side", ["left", "right"])
def test_padded_batch_is_one_by_one(every, side):
    ids, mask, real = padded_batch(side)
    whole = every(ids, attention_mask=mask).logits
    pieces = in_chunks(every, ids, [5, 1, 10, 7], mask)
    assert whole.isfinite().all()
    for row, where in enumerate(real):
        alone = every(ids[row : row + 1, where]).logits[0]
        assert relative_rms(whole[row, where], alone) <= LIMIT
        assert relative_rms(pieces[row, where], alone) <= LIMIT


@pytest.mark.parametrize("side", ["left", "right"])
def test_tokens_after_a_padded_prompt_are_one_by_one(model, side):
    """The next tokens follow each row's own last one, with the mask or without it."""
    ids, mask, real = padded_batch(side)
    more = tiny_tokens(len(LENGTHS), 9, seed=1)
    full_mask = torch.cat([mask, torch.ones_like(more)], dim=1)
    for later_mask in (full_mask, None):
        cache = model(ids, attention_mask=mask, use_cache=True).past_key_values
        outputs = []
        for start, stop in ((0, 4), (4, 5), (5, 9)):
            seen = None if later_mask is None else later_mask[:, : ids.shape[1] + stop]
            step = model(more[:, start:stop], attention_mask=seen, past_key_values=cache)
            outputs.append(step.logits)
        batched = torch.cat(outputs, dim=1)
        for row, where in enumerate(real):
            joined = torch.cat([ids[row, where], more[row]])[None]
            alone = model(joined).logits[0, -more.shape[1] :]
            assert relative_rms(batched[row], alone) <= LIMIT


def test_padding_that_starts_late_is_one_by_one(model):
    """A first chunk without padding, then one with: positions are filled in afterwards."""
    ids, mask, real = padded_batch("right")
    logits = in_chunks(model, ids, [8, 15], mask)
    for row, where in enumerate(real):
        alone = model(ids[row : row + 1, where]).logits[0]
        assert relative_rms(logits[row, where], alone) <= LIMIT


def test_cached_generation_is_uncached(every):
    ids, mask, _ = padded_batch("left")
    for inputs in ({"input_ids": tiny_tokens(2, 20)}, {"input_ids": ids, "attention_mask": mask}):
        cached, uncached = (
            every.generate(**inputs, max_new_tokens=12, do_sample=False, use_cache=use_cache)
            for use_cache in (True, False)
        )
        assert cached.equal(uncached)


def test_generation_from_a_padded_batch_is_one_by_one(model):
    ids, mask, real = padded_batch("left")
    batched = model.generate(ids, attention_mask=mask, max_new_tokens=10, do_sample=False)
    for row, where in enumerate(real):
        alone = model.generate(ids[row : row + 1, where], max_new_tokens=10, do_sample=False)
        expected = alone[0, where.stop - where.start :]  # shorter where it ended by itself
        assert batched[row, ids.shape[1] :][: len(expected)].equal(expected)


def test_generation_in_prefill_chunks(model):
    ids = tiny_tokens(2, 20)
    options = {"max_new_tokens": 8, "do_sample": False}
    assert model.generate(ids, prefill_chunk_size=6, **options).equal(
        model.generate(ids, **options)
    )


def test_beam_search_cached_is_uncached(every):
    ids, mask, _ = padded_batch("left")
    cached, uncached = (
        every.generate(
            ids,
            attention_mask=mask,
            num_beams=3,
            max_new_tokens=8,
            do_sample=False,
            use_cache=use_cache,
        )
        for use_cache in (True, False)
    )
    assert cached.equal(uncached)


def test_chunks_of_every_family_are_one_prefill(every):
    ids = tiny_tokens(2, 40)
    assert relative_rms(in_chunks(every, ids, [25, 1, 1, 13]), every(ids).logits) <= LIMIT


def test_cache_bytes_of_every_family_are_as_predicted(every):
    cache = HybridCache(every.config)
    for start in range(0, 40, 20):
        every(tiny_tokens(3, 40)[:, start : start + 20], past_key_values=cache)
        assert cache.nbytes() == predicted_kv_bytes(every.config, start + 20, 3, 4)


def test_state_comes_back(every):
    again = HybridForCausalLM(every.config).eval()
    again.load_state_dict(every.state_dict())
    ids = tiny_tokens(2, 30)
    assert again(ids).logits.equal(every(ids).logits)


@pytest.mark.parametrize("chunk", [1, 4, 23])
@pytest.mark.parametrize("side", [None, "left", "right"])
def test_cache_bytes_are_as_predicted(model, side, chunk):
    ids, mask, _ = padded_batch(side or "left")
    cache = HybridCache(model.config)
    assert cache.nbytes() == 0
    # The first row has no padding: on the right, padding begins after the shortest row.
    shortest = min(LENGTHS)
    for start in range(0, ids.shape[1], chunk):
        stop = min(start + chunk, ids.shape[1])
        seen = mask[:, :stop] if side else None
        model(ids[:, start:stop], attention_mask=seen, past_key_values=cache)
        padded = side == "left" or (side == "right" and stop > shortest)
        predicted = predicted_kv_bytes(model.config, stop, len(ids), 4, padded)
        assert cache.nbytes() == predicted


def test_cache_rows_can_be_selected_and_repeated(model):
    ids, mask, _ = padded_batch("left")
    more = tiny_tokens(4, 1, seed=2)
    rows = torch.tensor([2, 0])
    expected = model(
        torch.cat([ids[rows].repeat_interleave(2, 0), more], dim=1),
        attention_mask=torch.cat([mask[rows].repeat_interleave(2, 0), torch.ones(4, 1)], dim=1),
    ).logits[:, -1:]
    cache = model(ids, attention_mask=mask, use_cache=True).past_key_values
    cache.batch_select_indices(rows)
    cache.batch_repeat_interleave(2)
    assert relative_rms(model(more, past_key_values=cache).logits, expected) <= LIMIT
    cache.reset()
    assert cache.nbytes() == 0
    assert relative_rms(model(ids, past_key_values=cache).logits, model(ids).logits) <= LIMIT


def test_gradient_reaches_lora_in_every_layer(every):
    spec = every.config.layer_specs[0]
    adapted = get_peft_model(
        deepcopy(every), LoraConfig(target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    )
    ids = tiny_tokens(2, 30)
    adapted(ids, labels=ids).loss.backward()
    gradients = {name: p.grad for name, p in adapted.named_parameters() if p.requires_grad}
    mixing = sum(layer["mixer"]["kind"] != "none" for layer in every.config.layer_specs)
    assert len(gradients) == mixing * 2 * 2
    # The queries of a layer that sees one key have no say, so theirs may be zero there.
    lone = spec["mixer"].get("window") == 1 and spec["mixer"].get("sinks") == 0
    for name, gradient in gradients.items():
        assert gradient.isfinite().all()
        assert lone or gradient.abs().sum() > 0, name


def test_gradient_checkpointing_changes_nothing(model):
    spec = model.config.layer_specs[0]
    ids = tiny_tokens(2, 30)
    gradients = []
    for checkpointing in (False, True):
        trained = tiny_hybrid(spec).train()
        if checkpointing:
            trained.gradient_checkpointing_enable()
        trained(ids, labels=ids).loss.backward()
        gradients.append(trained.model.embed_tokens.weight.grad)
    assert relative_rms(*gradients) <= LIMIT


def test_bfloat16_stays_bfloat16(model):
    low = tiny_hybrid(model.config.layer_specs[0]).bfloat16()
    ids = tiny_tokens(2, 30)
    logits = in_chunks(low, ids, [20, 1, 9])
    assert logits.dtype == torch.bfloat16
    assert relative_rms(logits, low(ids).logits) <= SAME_MODEL[torch.bfloat16]
