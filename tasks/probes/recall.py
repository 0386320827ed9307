"""Recall prompts: facts hidden in generated English text, and the likelihood of the answer.

Each prompt states a fact once, far outside every window, and asks for it at the end. Scores come
from teacher forcing, without sampling.
"""

import random
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import torch
from pydantic import Field
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from layerwright.tasks.errors import InputError
from layerwright.tasks.passes.likelihood import target_nll
from layerwright.tasks.probes.recall_cases import CASES, Case, Probe, sentence

Probes = Annotated[tuple[Probe, ...], Field(min_length=1)]


class RecallPrompt(NamedTuple):
    """One prompt with its answer.

    Attributes:
        ids: (T,) int64, T = ``prompt_tokens``.
        key_start: the key, which is the answer, is ``ids[key_start:]``.
        key: the answer's text, without surrounding spaces.
    """

    ids: Tensor
    key_start: int
    key: str


class KeyScore(NamedTuple):
    """Score of one answer.

    Attributes:
        log_prob: mean log-probability per key token, in nats.
        exact: whether every key token is the argmax.
        likeliest: the argmax at each key token, given the correct tokens before it.
    """

    log_prob: float
    exact: bool
    likeliest: tuple[int, ...]


Probed = Mapping[str, Sequence[RecallPrompt]]  # prompts by the probe's name


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
        prompt_tokens: exact length of each prompt, answer included.
        seed: of facts and filler; except for its depth, prompt i depends on (seed, i) only.
        keep_out_tokens: sinks + window. All statements come after the introduction (about twenty
            tokens, more than any sinks) and end at least this many tokens before the first token of
            the answer.

    Raises:
        InputError: the prompt is too short to keep the statements outside sinks and window.
    """
    prompts = []
    for index in range(count):
        numbers = random.Random(f"{seed}/{index}")
        case, depth = CASES[probe](numbers), (index + 0.5) / count
        prompts.append(_prompt(tokenizer, numbers, case, depth, prompt_tokens, keep_out_tokens))
    return prompts


def probe_prompts(
    probes: Sequence[Probe], *args: Any, **options: Any
) -> dict[str, list[RecallPrompt]]:
    """`recall_prompts` of each probe, by the probe's name; takes its other arguments."""
    return {probe: recall_prompts(probe, *args, **options) for probe in probes}


def _prompt(
    tokenizer: PreTrainedTokenizerBase,
    numbers: random.Random,
    case: Case,
    depth: float,
    prompt_tokens: int,
    keep_out_tokens: int,
) -> RecallPrompt:
    first, bos = tokenizer("a").input_ids[0], tokenizer.bos_token_id
    start = [bos] if bos is not None and first == bos else []
    start += _ids(tokenizer, case.introduction)
    needles = [_ids(tokenizer, needle) for needle in case.needles]
    answer, end = _ids(tokenizer, case.answer), _ids(tokenizer, case.question)
    while not str(tokenizer.decode(answer[:1])).strip():  # tokens that hold only a space
        end.append(answer.pop(0))
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
    ids, filled = list(start), 0
    for index in sorted(range(len(needles)), key=lambda i: before[i]):
        ids += _filler(tokenizer, numbers, before[index] - filled) + needles[index]
        filled = before[index]
    ids += _filler(tokenizer, numbers, filler_tokens - filled) + end + answer
    return RecallPrompt(torch.tensor(ids), prompt_tokens - len(answer), case.answer.strip())


def score_keys(logits: Tensor, prompts: Sequence[RecallPrompt]) -> list[KeyScore]:
    """Scores of prompts of equal length, from their last logits.

    Args:
        logits: (B, N, V) at the last N positions; N is greater than the longest key.
    """
    scores = []
    for row, prompt in zip(logits, prompts, strict=True):
        keys = prompt.ids[prompt.key_start :].to(logits.device)
        # position t predicts token t + 1, and the key is at the end
        at_key = row[-len(keys) - 1 : -1]
        log_prob = -target_nll(at_key[None], keys[None]).mean().item()
        likeliest = at_key.argmax(-1)
        scores.append(KeyScore(log_prob, likeliest.equal(keys), tuple(likeliest.tolist())))
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
        logits, cache = [read.logits], read.past_key_values
        for token in ids[:, first:].split(1, dim=1):
            logits.append(model(token, past_key_values=cache, use_cache=True).logits)
        scores += score_keys(torch.cat(logits, dim=1), group)
    return scores


def last_logits(prompts: Sequence[RecallPrompt]) -> int:
    """Number of last positions that need logits: the longest key and the position before it."""
    return max(len(prompt.ids) - prompt.key_start for prompt in prompts) + 1


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False).input_ids


def _filler(tokenizer: PreTrainedTokenizerBase, numbers: random.Random, tokens: int) -> list[int]:
    """Exactly ``tokens`` tokens of whole sentences; only the first is cut, at its start."""
    ids: list[int] = []
    while len(ids) < tokens:
        ids += _ids(tokenizer, " " + sentence(numbers))
    return ids[len(ids) - tokens :]
