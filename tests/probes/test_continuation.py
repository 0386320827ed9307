"""Batched greedy text: one prompt alone, where a text ends, what memory does not hold."""

from functools import cache

import pytest
import torch
from tiny import LAYER_SPECS, tiny_hybrid
from tiny_checkpoint import byte_tokenizer

from layerwright.tasks.hybrid.modeling import HybridForCausalLM
from layerwright.tasks.probes.continuation import continuations

TOKENIZER = byte_tokenizer()
PROMPTS = [TOKENIZER(text).input_ids for text in ("a quick brown fox", "over", "the lazy dog ran")]


def greedy(model, prompt: list[int], count: int) -> list[int]:
    """Token by token, without a cache."""
    ids = list(prompt)
    for _ in range(count):
        with torch.inference_mode():
            ids.append(int(model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
        if ids[-1] == model.generation_config.eos_token_id:
            break
    return ids[len(prompt) :]


@cache
def model_of(spec: str) -> HybridForCausalLM:
    return tiny_hybrid(LAYER_SPECS[spec])


@cache
def one_by_one(spec: str) -> list[list[int]]:
    return [greedy(model_of(spec), prompt, 24) for prompt in PROMPTS]


@pytest.mark.parametrize("spec", ["full", "streaming", "gla"])
@pytest.mark.parametrize("at_once", [1, 2, 3])
def test_a_batch_is_one_by_one(spec, at_once) -> None:
    found = list(
        continuations(model_of(spec), PROMPTS, TOKENIZER, max_new_tokens=24, at_once=at_once)
    )
    expected = one_by_one(spec)
    assert [list(one.tokens) for one in found] == expected
    assert [one.text for one in found] == [
        TOKENIZER.decode(ids, skip_special_tokens=True) for ids in expected
    ]


def test_a_text_ends_with_the_end_of_sequence_token() -> None:
    model = tiny_hybrid(LAYER_SPECS["full"])
    (whole,) = continuations(model, PROMPTS[:1], TOKENIZER, max_new_tokens=8)
    assert len(whole.tokens) == 8
    # the first one that did not stand before it ends the text from now on
    end = next(i for i, t in enumerate(whole.tokens) if i and t not in whole.tokens[:i])
    model.generation_config.eos_token_id = [257, whole.tokens[end]]
    first, second = continuations(model, PROMPTS[:2], TOKENIZER, max_new_tokens=8)
    assert first.tokens == whole.tokens[: end + 1]
    assert list(second.tokens) == list(
        next(continuations(model, PROMPTS[1:2], TOKENIZER, max_new_tokens=8)).tokens
    )


def test_a_text_ends_before_a_stop() -> None:
    model = tiny_hybrid(LAYER_SPECS["full"], seed=2)  # which writes some ASCII
    (whole,) = continuations(model, PROMPTS[1:2], TOKENIZER, max_new_tokens=40)
    stop, at = next((c, i) for i, c in enumerate(whole.text) if i and c.isascii()
                    and c not in whole.text[:i])  # fmt: skip
    options = {"max_new_tokens": 40, "stops": ["never there", stop]}
    cut = list(continuations(model, PROMPTS, TOKENIZER, **options))[1]
    assert cut.text == whole.text[:at]
    assert TOKENIZER.decode(cut.tokens).endswith(stop)
    assert cut.tokens == whole.tokens[: len(cut.tokens)]


def test_what_memory_does_not_hold_is_read_in_smaller_batches() -> None:
    model = tiny_hybrid(LAYER_SPECS["full"])
    expected = list(continuations(model, PROMPTS * 2, TOKENIZER, max_new_tokens=6, at_once=1))
    sizes = []

    def full(module, inputs) -> None:
        if inputs[0].shape[1] > 1:  # a prompt
            sizes.append(len(inputs[0]))
            if len(inputs[0]) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory.")

    model.model.embed_tokens.register_forward_pre_hook(full)
    found = list(continuations(model, PROMPTS * 2, TOKENIZER, max_new_tokens=6, at_once=5))
    assert found == expected
    assert sizes == [5, 4, 3, 2, 2, 2]  # accelerate takes a tenth off until it fits
