"""Greedy text behind many prompts, a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from accelerate.utils import find_executable_batch_size
from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Continuation:
    """What a model wrote: ``text`` up to the first stop, ``tokens`` with the one that ended it."""

    text: str
    tokens: tuple[int, ...]


def continuations(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    stops: Sequence[str] = (),
    at_once: int = 8,
) -> Iterator[Continuation]:
    """The likeliest token each time, by the model's own `generate` and cache.

    Prompts of one batch are padded on the left. A batch that does not fit into memory is made
    smaller, and so are all that follow.

    Args:
        prompts: token ids; those of similar length side by side waste the least.
        stops: a text ends before the first of these, and with the model's end-of-sequence token.

    Yields:
        One for each prompt, in order.
    """
    start = 0
    while start < len(prompts):

        def some(size: int, start: int = start) -> list[Continuation]:
            batch = prompts[start : start + size]
            return _batch(model, tokenizer, batch, max_new_tokens, stops)

        found = find_executable_batch_size(some, starting_batch_size=at_once)()
        at_once = min(at_once, len(found))
        start += len(found)
        yield from found


def continuation(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt: Sequence[int],
    *,
    max_new_tokens: int,
) -> Continuation:
    """As `continuations`, of one prompt, and with nothing around it that takes time: to be timed.

    Raises:
        Exception: whatever the model raises; memory that does not suffice too.
    """
    (found,) = _batch(model, tokenizer, [prompt], max_new_tokens, ())
    return found


@torch.inference_mode()
def _batch(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    stops: Sequence[str],
) -> list[Continuation]:
    ends = _end_tokens(model)
    pad = tokenizer.pad_token_id
    if pad is None:
        pad = ends[0] if ends else 0
    longest = max(map(len, prompts))
    ids_BT = torch.full((len(prompts), longest), pad)
    mask_BT = torch.zeros_like(ids_BT)
    for row, prompt in enumerate(prompts):
        ids_BT[row, longest - len(prompt) :] = torch.tensor(prompt)
        mask_BT[row, longest - len(prompt) :] = 1
    rows = model.generate(
        ids_BT.to(model.device),
        attention_mask=mask_BT.to(model.device),
        max_new_tokens=max_new_tokens,
        do_sample=False,
        pad_token_id=pad,
        **({"stop_strings": list(stops), "tokenizer": tokenizer} if stops else {}),
    )
    return [_ended(tokenizer, row, ends, stops) for row in rows[:, longest:].tolist()]


def _ended(
    tokenizer: PreTrainedTokenizerBase, ids: list[int], ends: Sequence[int], stops: Sequence[str]
) -> Continuation:
    """The row without what stands behind its end."""
    length = next((i + 1 for i, token in enumerate(ids) if token in ends), len(ids))
    text = _decoded(tokenizer, ids[:length])
    if any(stop in text for stop in stops):
        length = next(
            count
            for count in range(1, length + 1)
            if any(stop in _decoded(tokenizer, ids[:count]) for stop in stops)
        )
        text = text[: min(text.index(stop) for stop in stops if stop in text)]
    return Continuation(text, tuple(ids[:length]))


def _decoded(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    return tokenizer.decode(ids, skip_special_tokens=True)


def _end_tokens(model: PreTrainedModel) -> tuple[int, ...]:
    ends = model.generation_config.eos_token_id
    return tuple(ends) if isinstance(ends, list) else () if ends is None else (ends,)
