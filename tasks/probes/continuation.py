"""Greedy continuations of many prompts, generated in batches."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from accelerate.utils import find_executable_batch_size
from transformers import PreTrainedModel, PreTrainedTokenizerBase


class Continuation(NamedTuple):
    """A generated text up to the first stop, and its ``tokens`` including the one that ended it."""

    text: str
    tokens: Sequence[int]


def continuations(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_new_tokens: int,
    stops: Sequence[str] = (),
    at_once: int = 8,
) -> Iterator[Continuation]:
    """Greedy decoding with the model's own `generate` and KV cache.

    The prompts of a batch are padded on the left. If a batch does not fit into memory, it and all
    later batches are made smaller.

    Args:
        prompts: token ids; neighbours of similar length waste the least padding.
        stops: a text ends before the first of these strings, or with the model's end-of-sequence
            token.
        at_once: initial number of prompts per batch.

    Yields:
        One continuation per prompt, in order.
    """
    start = 0
    while start < len(prompts):

        def generate(size: int, start: int = start) -> list[Continuation]:
            batch = prompts[start : start + size]
            return _generate_batch(model, tokenizer, batch, max_new_tokens, stops)

        batch_texts = find_executable_batch_size(generate, starting_batch_size=at_once)()
        at_once = min(at_once, len(batch_texts))
        start += len(batch_texts)
        yield from batch_texts


def continuation(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt: Sequence[int],
    max_new_tokens: int,
) -> Continuation:
    """The continuation of one prompt, without the overhead of batching, so that it can be timed.

    Raises:
        Exception: any error of the model, including lack of memory.
    """
    return _generate_batch(model, tokenizer, [prompt], max_new_tokens, ())[0]


@torch.inference_mode()
def _generate_batch(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    stops: Sequence[str],
) -> list[Continuation]:
    end = model.generation_config.eos_token_id
    ends = end if isinstance(end, list) else [] if end is None else [end]
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else (*ends, 0)[0]
    longest = max(map(len, prompts))
    ids_BT = torch.full((len(prompts), longest), pad)
    mask_BT = torch.zeros_like(ids_BT)
    for row, prompt in enumerate(prompts):
        ids_BT[row, longest - len(prompt) :] = torch.tensor(prompt)
        mask_BT[row, longest - len(prompt) :] = 1
    generate: Any = model.generate
    rows = generate(
        ids_BT.to(model.device),
        attention_mask=mask_BT.to(model.device),
        max_new_tokens=max_new_tokens,
        do_sample=False,
        pad_token_id=pad,
        **({"stop_strings": list(stops), "tokenizer": tokenizer} if stops else {}),
    )
    return [_cut_at_end(tokenizer, row, ends, stops) for row in rows[:, longest:].tolist()]


def _cut_at_end(
    tokenizer: PreTrainedTokenizerBase, ids: list[int], ends: Sequence[int], stops: Sequence[str]
) -> Continuation:
    """Cuts a row of generated tokens at its end token or first stop."""

    def text_of(count: int) -> str:
        return str(tokenizer.decode(ids[:count], skip_special_tokens=True))

    length = next((i + 1 for i, token in enumerate(ids) if token in ends), len(ids))
    text = text_of(length)
    if any(stop in text for stop in stops):
        counts = range(1, length + 1)
        length = next(n for n in counts if any(stop in text_of(n) for stop in stops))
        text = text[: min(text.index(stop) for stop in stops if stop in text)]
    return Continuation(text, tuple(ids[:length]))
