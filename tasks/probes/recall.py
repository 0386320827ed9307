"""Generated recall prompts: facts hidden in running English text, and an answer's likelihood.

What is asked for is stated once, far outside every window, and asked for at the end. Scored by
teacher forcing, without sampling: the mean log-probability per answer token, and whether the
answer would be decoded greedily.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from layerwright.tasks.errors import InputError
from layerwright.tasks.passes.likelihood import target_nll
from layerwright.tasks.probes.filler import sentence
from layerwright.tasks.probes.recall_cases import CASES, Case, Probe

Probes = Annotated[tuple[Probe, ...], Field(min_length=1)]
Probed = Mapping[str, Sequence["RecallPrompt"]]  # prompts by the probe's name


@dataclass(frozen=True)
class RecallPrompt:
    """One prompt, its answer included.

    Attributes:
        ids: (T,) int64, T = ``prompt_tokens``; the key, which is the answer, comes last.
        key_start, key_stop: the key's tokens are ``ids[key_start:key_stop]``.
        needle_start, needle_stop: where the text states the key.
        key: the answer's text, without spaces around it.
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
    """``log_prob``: mean per key token, in nats. ``exact``: every key token is the argmax.
    ``likeliest``: the argmax at each of them, the right ones before it given."""

    log_prob: float
    exact: bool
    likeliest: tuple[int, ...]


def recall_prompts(
    probe: Probe,
    tokenizer: PreTrainedTokenizerBase,
    count: int,
    prompt_tokens: int,
    seed: int,
    *,
    keep_out_tokens: int,
) -> list[RecallPrompt]:
    """Prompts with what is asked for spread evenly over the depths that are allowed.

    Args:
        probe: see tasks/probes/recall_cases.py.
        count: number of prompts.
        prompt_tokens: exact length of each, answer included.
        seed: of facts and filler; prompt i depends on (seed, i) alone but for its depth.
        keep_out_tokens: sinks + window. All statements begin after the introduction (some twenty
            tokens, more than any sinks) and end at least this many tokens before the first
            token of the answer.

    Raises:
        InputError: the prompt is too short for the statements to stay out of sinks and window.
    """
    prompts = []
    for index in range(count):
        numbers = random.Random(f"{seed}/{index}")
        case = CASES[probe](numbers)
        depth = (index + 0.5) / count
        prompts.append(_prompt(tokenizer, numbers, case, depth, prompt_tokens, keep_out_tokens))
    return prompts


def probe_prompts(
    probes: Sequence[Probe],
    tokenizer: PreTrainedTokenizerBase,
    count: int,
    prompt_tokens: int,
    seed: int,
    *,
    keep_out_tokens: int,
) -> dict[str, list[RecallPrompt]]:
    """`recall_prompts` of each probe, by its name."""
    return {
        probe: recall_prompts(
            probe, tokenizer, count, prompt_tokens, seed, keep_out_tokens=keep_out_tokens
        )
        for probe in probes
    }


def _prompt(
    tokenizer: PreTrainedTokenizerBase,
    numbers: random.Random,
    case: Case,
    depth: float,
    prompt_tokens: int,
    keep_out_tokens: int,
) -> RecallPrompt:
    start = [tokenizer.bos_token_id] if _adds_bos(tokenizer) else []
    start += _ids(tokenizer, case.introduction)
    needles = [_ids(tokenizer, needle) for needle in case.needles]
    answer, end = _split_key(tokenizer, case.answer)
    end = _ids(tokenizer, case.question) + end
    filler_tokens = prompt_tokens - sum(map(len, (start, *needles, end, answer)))
    behind = max(0, keep_out_tokens - len(end))  # filler tokens between needles and question
    if filler_tokens < behind:
        raise InputError(
            f"recall prompts of {prompt_tokens} tokens leave no room for the answer outside "
            f"sinks and window ({keep_out_tokens} tokens)",
            expected=f"at least {prompt_tokens - filler_tokens + behind} tokens a prompt",
            remedy="ask for longer prompts or a smaller window",
        )
    room = filler_tokens - behind
    # how much filler stands before each needle; the one that is asked for is where depth says
    # the others are anywhere, or behind it where they keep their order
    asked_for = round(room * depth)
    lowest = asked_for if case.ordered else 0
    before = [numbers.randint(lowest, room) if i != case.asked else -1 for i in range(len(needles))]
    before[case.asked] = asked_for
    if case.ordered:
        before.sort()
    ids, filled, needle_start = list(start), 0, 0
    for index in sorted(range(len(needles)), key=lambda i: before[i]):
        ids += _filler(tokenizer, numbers, before[index] - filled)
        filled = before[index]
        if index == case.asked:
            needle_start = len(ids)
        ids += needles[index]
    ids += _filler(tokenizer, numbers, filler_tokens - filled) + end + answer
    return RecallPrompt(
        ids=torch.tensor(ids),
        key_start=prompt_tokens - len(answer),
        key_stop=prompt_tokens,
        needle_start=needle_start,
        needle_stop=needle_start + len(needles[case.asked]),
        key=case.answer.strip(),
    )


def score_keys(logits: Tensor, prompts: Sequence[RecallPrompt]) -> list[KeyScore]:
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
        likeliest = at_key.argmax(-1)
        exact = bool((likeliest == keys).all())
        scores.append(KeyScore(log_prob, exact, tuple(likeliest.tolist())))
    return scores


@torch.inference_mode()
def key_scores(
    model: PreTrainedModel, prompts: Sequence[RecallPrompt], *, batch: int = 1
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


def last_logits(prompts: Sequence[RecallPrompt]) -> int:
    """How many positions from the end need logits: the longest key and the position before it."""
    return max(prompt.key_stop - prompt.key_start for prompt in prompts) + 1


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False).input_ids


def _adds_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    ids = tokenizer("a").input_ids
    return tokenizer.bos_token_id is not None and ids[0] == tokenizer.bos_token_id


def _split_key(tokenizer: PreTrainedTokenizerBase, answer: str) -> tuple[list[int], list[int]]:
    """The answer's own tokens, and those before them that hold nothing of it (a lone space)."""
    ids = _ids(tokenizer, answer)
    first = next((i for i, token in enumerate(ids) if tokenizer.decode([token]).strip()), 0)
    return ids[first:], ids[:first]


def _filler(tokenizer: PreTrainedTokenizerBase, numbers: random.Random, tokens: int) -> list[int]:
    """Exactly ``tokens`` tokens of whole sentences; the first one loses its beginning."""
    ids: list[int] = []
    while len(ids) < tokens:
        ids += _ids(tokenizer, " " + sentence(numbers))
    return ids[len(ids) - tokens :]
