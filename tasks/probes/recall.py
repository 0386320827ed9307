"""Recall prompts: facts hidden in generated English text, and the likelihood of the answer.

Each prompt states a fact once, far outside every window, and asks for it at the end. Scores come
from teacher forcing, without sampling: the mean log-probability per answer token, and whether
greedy decoding gives the answer.
"""

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
    """One prompt with its answer.

    Attributes:
        ids: (T,) int64, T = ``prompt_tokens``; the key, which is the answer, is at the end.
        key_start, key_stop: the key's tokens are ``ids[key_start:key_stop]``.
        needle_start, needle_stop: token range of the statement that contains the key.
        key: the answer's text, without surrounding spaces.
    """

    ids: Tensor
    key_start: int
    key_stop: int
    needle_start: int
    needle_stop: int
    key: str

    @property
    def depth(self) -> float:
        """Relative position of the needle, from 0 (start of the prompt) to 1 (end)."""
        return self.needle_start / len(self.ids)


@dataclass(frozen=True)
class KeyScore:
    """Score of one answer.

    Attributes:
        log_prob: mean log-probability per key token, in nats.
        exact: whether every key token is the argmax.
        likeliest: the argmax at each key token, given the correct tokens before it.
    """

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
    """Prompts whose needles are spread evenly over the allowed depths.

    Args:
        probe: the kind of question, see tasks/probes/recall_cases.py.
        count: number of prompts.
        prompt_tokens: exact length of each prompt, answer included.
        seed: seed of facts and filler; except for its depth, prompt i depends on (seed, i) only.
        keep_out_tokens: sinks + window. All statements come after the introduction (about twenty
            tokens, more than any sinks) and end at least this many tokens before the first token of
            the answer.

    Raises:
        InputError: the prompt is too short to keep the statements outside sinks and window.
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
    """`recall_prompts` of each probe, by the probe's name."""
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
    least_after = max(0, keep_out_tokens - len(end))  # between needles and question
    if filler_tokens < least_after:
        raise InputError(
            f"recall prompts of {prompt_tokens} tokens are too short to keep the answer outside "
            f"sinks and window ({keep_out_tokens} tokens)",
            expected=f"at least {prompt_tokens - filler_tokens + least_after} tokens a prompt",
            remedy="ask for longer prompts or a smaller window",
        )
    room = filler_tokens - least_after
    # Filler tokens before each needle. The needle that is asked for is at the given depth. The
    # others are at random depths; if their order is fixed, they come after it.
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
    """Scores of prompts of equal length, from their last logits.

    Args:
        logits: (B, N, V), logits at the last N positions; N is greater than the longest key.
        prompts: B prompts.
    """
    scores = []
    for row, prompt in zip(logits, prompts, strict=True):
        keys = prompt.ids[prompt.key_start : prompt.key_stop].to(logits.device)
        # position t predicts token t + 1, and the key is at the end
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
    """Scores with a KV cache as in real use: prefill of the prompt, then the key token by token.

    For most models one pass over prompt and key gives the same scores. A model that selects during
    prefill what its cache keeps shows the cost of this selection only here.
    """
    scores: list[KeyScore] = []
    for start in range(0, len(prompts), batch):
        group = prompts[start : start + batch]
        ids = torch.stack([prompt.ids for prompt in group]).to(model.device)
        first = ids.shape[1] - (last_logits(group) - 1)  # start of the longest key
        read = model(ids[:, :first], use_cache=True, logits_to_keep=1)
        logits = [read.logits]
        for token in ids[:, first:].split(1, dim=1):
            step = model(token, past_key_values=read.past_key_values, use_cache=True)
            logits.append(step.logits)
        scores += score_keys(torch.cat(logits, dim=1), group)
    return scores


def last_logits(prompts: Sequence[RecallPrompt]) -> int:
    """Number of last positions that need logits: the longest key and the position before it."""
    return max(prompt.key_stop - prompt.key_start for prompt in prompts) + 1


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False).input_ids


def _adds_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    ids = tokenizer("a").input_ids
    return tokenizer.bos_token_id is not None and ids[0] == tokenizer.bos_token_id


def _split_key(tokenizer: PreTrainedTokenizerBase, answer: str) -> tuple[list[int], list[int]]:
    """The answer's tokens, and the tokens before them that hold only a space."""
    ids = _ids(tokenizer, answer)
    first = next((i for i, token in enumerate(ids) if str(tokenizer.decode([token])).strip()), 0)
    return ids[first:], ids[:first]


def _filler(tokenizer: PreTrainedTokenizerBase, numbers: random.Random, tokens: int) -> list[int]:
    """Exactly ``tokens`` tokens of whole sentences; only the first is cut, at its start."""
    ids: list[int] = []
    while len(ids) < tokens:
        ids += _ids(tokenizer, " " + sentence(numbers))
    return ids[len(ids) - tokens :]
