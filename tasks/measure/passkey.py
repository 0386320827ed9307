"""Generated passkey prompts: a five-digit key in running English text, and its likelihood.

The task of arXiv 2305.16300, section 4.2: the key is stated once, far outside every window, and
asked for at the end. Scored by teacher forcing, without sampling: the mean log-probability per key
token, and whether the key would be decoded greedily.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tasks.errors import InputError
from tasks.measure.filler import sentence
from tasks.measure.likelihood import target_nll

_INTRODUCTION = (
    "There is an important pass key hidden inside a lot of irrelevant text. "
    "Find it and memorize it. I will ask you about it at the end.\n\n"
)
_NEEDLE = " The pass key is {key}. Remember it."
_QUESTION = "\n\nWhat is the pass key? The pass key is"


@dataclass(frozen=True)
class PasskeyPrompt:
    """One prompt, its key included.

    Attributes:
        ids: (T,) int64, T = ``prompt_tokens``; the key's tokens come last.
        key_start, key_stop: the key's tokens are ``ids[key_start:key_stop]``.
        needle_start, needle_stop: where the text states the key.
        key: the five digits.
    """

    ids: Tensor
    key_start: int
    key_stop: int
    needle_start: int
    needle_stop: int
    key: str

    @property
    def depth(self) -> float:
        """Where the needle stands, from 0 (start of the prompt) to 1 (its end)."""
        return self.needle_start / len(self.ids)


@dataclass(frozen=True)
class KeyScore:
    """``log_prob``: mean per key token, in nats. ``exact``: every key token is the argmax."""

    log_prob: float
    exact: bool


def passkey_prompts(
    tokenizer: PreTrainedTokenizerBase,
    count: int,
    prompt_tokens: int,
    seed: int,
    *,
    keep_out_tokens: int,
) -> list[PasskeyPrompt]:
    """Prompts with their needles spread evenly over the depths that are allowed.

    Args:
        count: number of prompts.
        prompt_tokens: exact length of each, key included.
        seed: of keys and filler; prompt i depends on (seed, i) alone but for its depth.
        keep_out_tokens: sinks + window. The needle begins after the introduction (some thirty
            tokens, more than any sinks) and ends at least this many tokens before the first
            token of the key at the end.

    Raises:
        InputError: the prompt is too short for the needle to stay out of sinks and window.
    """
    prompts = []
    for index in range(count):
        numbers = random.Random(f"{seed}/{index}")
        key = f"{numbers.randrange(10_000, 100_000)}"
        start = [tokenizer.bos_token_id] if _adds_bos(tokenizer) else []
        start += _ids(tokenizer, _INTRODUCTION)
        needle = _ids(tokenizer, _NEEDLE.format(key=key))
        answer, end = _split_key(tokenizer, key)
        end = _ids(tokenizer, _QUESTION) + end
        filler_tokens = prompt_tokens - len(start) - len(needle) - len(end) - len(answer)
        behind = max(0, keep_out_tokens - len(end))  # filler tokens between needle and question
        if filler_tokens < behind:
            raise InputError(
                f"passkey prompts of {prompt_tokens} tokens leave no room for the key outside "
                f"sinks and window ({keep_out_tokens} tokens)",
                expected=f"at least {prompt_tokens - filler_tokens + behind} tokens a prompt",
                remedy="ask for longer prompts or a smaller window",
            )
        before = round((filler_tokens - behind) * (index + 0.5) / count)
        head = _filler(tokenizer, numbers, before)
        tail = _filler(tokenizer, numbers, filler_tokens - before)
        ids = start + head + needle + tail + end + answer
        needle_start = len(start) + len(head)
        prompts.append(
            PasskeyPrompt(
                ids=torch.tensor(ids),
                key_start=prompt_tokens - len(answer),
                key_stop=prompt_tokens,
                needle_start=needle_start,
                needle_stop=needle_start + len(needle),
                key=key,
            )
        )
    return prompts


def score_keys(logits: Tensor, prompts: Sequence[PasskeyPrompt]) -> list[KeyScore]:
    """Scores from the last logits of prompts of one length.

    Args:
        logits: (B, N, V), the logits at the last N positions, N greater than the longest key.
        prompts: B prompts.
    """
    scores = []
    for row, prompt in zip(logits, prompts, strict=True):
        keys = prompt.ids[prompt.key_start : prompt.key_stop].to(logits.device)
        # position t predicts token t + 1, and the key comes last
        at_key = row[-len(keys) - 1 : -1]
        log_prob = -target_nll(at_key[None], keys[None]).mean().item()
        scores.append(KeyScore(log_prob, bool((at_key.argmax(-1) == keys).all())))
    return scores


@torch.inference_mode()
def key_scores(
    model: PreTrainedModel, prompts: Sequence[PasskeyPrompt], *, batch: int = 1
) -> list[KeyScore]:
    """Scores as in use: the prompt is read into a cache, and the key comes token by token.

    For most models one pass over both would say the same; one that decides while it reads the
    prompt what its cache keeps shows what that costs here alone.
    """
    scores: list[KeyScore] = []
    for start in range(0, len(prompts), batch):
        some = prompts[start : start + batch]
        ids = torch.stack([prompt.ids for prompt in some]).to(model.device)
        first = ids.shape[1] - (last_logits(some) - 1)  # the longest key begins here
        read = model(ids[:, :first], use_cache=True, logits_to_keep=1)
        logits = [read.logits]
        for token in ids[:, first:].split(1, dim=1):
            step = model(token, past_key_values=read.past_key_values, use_cache=True)
            logits.append(step.logits)
        scores += score_keys(torch.cat(logits, dim=1), some)
    return scores


def last_logits(prompts: Sequence[PasskeyPrompt]) -> int:
    """How many positions from the end need logits: the longest key and the position before it."""
    return max(prompt.key_stop - prompt.key_start for prompt in prompts) + 1


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False).input_ids


def _adds_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    ids = tokenizer("a").input_ids
    return tokenizer.bos_token_id is not None and ids[0] == tokenizer.bos_token_id


def _split_key(tokenizer: PreTrainedTokenizerBase, key: str) -> tuple[list[int], list[int]]:
    """The key's own tokens, and the tokens before them that hold no digit (a lone space)."""
    ids = _ids(tokenizer, f" {key}")
    first = next(
        (i for i, token in enumerate(ids) if any(c.isdigit() for c in tokenizer.decode([token]))),
        0,  # a vocabulary that spells no digits: the whole text counts as the key
    )
    return ids[first:], ids[:first]


def _filler(tokenizer: PreTrainedTokenizerBase, numbers: random.Random, tokens: int) -> list[int]:
    """Exactly ``tokens`` tokens of whole sentences; the first one loses its beginning."""
    ids: list[int] = []
    while len(ids) < tokens:
        ids += _ids(tokenizer, " " + sentence(numbers))
    return ids[len(ids) - tokens :]
