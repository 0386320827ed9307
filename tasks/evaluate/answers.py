"""How likely a model finds each answer of a question, many at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase

from layerwright.tasks.evaluate.questions import Question
from layerwright.tasks.hybrid.modeling import HybridForCausalLM
from layerwright.tasks.passes.likelihood import target_nll

MOST_TOKENS = {"cpu": 4096}  # at once, to begin with: a processor gains nothing from more
MOST_TOKENS_ELSEWHERE = 65_536


@dataclass(frozen=True)
class Answer:
    """``ids``: context and answer; the last ``tokens`` of them are the answer."""

    ids: tuple[int, ...]
    tokens: int


class AnswerScore(NamedTuple):
    """``log_prob``: sum over the answer's tokens, in nats. ``greedy``: each is the argmax."""

    log_prob: float
    greedy: bool


def encoded(question: Question, tokenizer: PreTrainedTokenizerBase) -> tuple[Answer, ...]:
    """The answers as tokens, split as lm-eval splits them.

    Context and answer are encoded together; the answer's tokens are those behind as many as the
    context alone has, one at least. Spaces at the end of the context count as the answer's. An
    empty context is the token that begins a text, or ends one.
    """
    answers = []
    for context, answer in question.pairs:
        if not context.strip():
            begin = tokenizer.bos_token_id
            begin = tokenizer.eos_token_id if begin is None else begin
            ids = [begin, *tokenizer(answer, add_special_tokens=False).input_ids]
            answers.append(Answer(tuple(ids), len(ids) - 1))
            continue
        whole = tokenizer(context + answer).input_ids
        before = tokenizer(context.rstrip()).input_ids
        answers.append(Answer(tuple(whole), max(1, len(whole) - len(before))))
    return tuple(answers)


def answer_scores(
    model: HybridForCausalLM, questions: Sequence[Sequence[Answer]]
) -> Iterator[list[AnswerScore]]:
    """The scores of every question's answers, question by question.

    Neighbours share a forward, so questions of like length should stand together, the longest
    first. As many tokens are run at once as fit: half as many after each failure for want of
    memory. Answers that differ in their last token alone share a row. Rows are padded behind their
    end, where no causal layer looks. A context is cut in front to the model's positions.
    """
    most_tokens = MOST_TOKENS.get(model.device.type, MOST_TOKENS_ELSEWHERE)
    done = 0
    while done < len(questions):
        try:
            scores = _first_scores(model, questions[done:], most_tokens)
        except Exception as error:
            if most_tokens == 1 or not should_reduce_batch_size(error):
                raise
            most_tokens //= 2
        else:
            yield from scores
            done += len(scores)
            continue
        clear_device_cache(garbage_collection=True)  # the error no longer holds what it ran on


def _first_scores(
    model: HybridForCausalLM, questions: Sequence[Sequence[Answer]], most_tokens: int
) -> list[list[AnswerScore]]:
    """Scores of as many of the first questions as ``most_tokens`` hold, of one at least."""
    longest, rows, count = 0, 0, 0
    for question in questions:
        longest = max(longest, *(len(answer.ids) for answer in question))
        rows += len(question)
        if count and longest * rows > most_tokens:
            break
        count += 1
    positions = model.config.max_position_embeddings
    some = [[_cut(answer, positions) for answer in question] for question in questions[:count]]
    answers = [answer for question in some for answer in question]
    inputs = list(dict.fromkeys(answer.ids[:-1] for answer in answers))
    at_once = max(1, most_tokens // max(map(len, inputs)))
    found: dict[Answer, AnswerScore] = {}
    for first in range(0, len(inputs), at_once):
        found |= _run(model, inputs[first : first + at_once], answers)
    return [[found[answer] for answer in question] for question in some]


def _cut(answer: Answer, positions: int) -> Answer:
    # the last token is predicted and not read
    return Answer(answer.ids[-(positions + 1) :], answer.tokens)


@torch.inference_mode()
def _run(
    model: HybridForCausalLM, inputs: Sequence[tuple[int, ...]], answers: Sequence[Answer]
) -> dict[Answer, AnswerScore]:
    """Scores of those answers whose input is one of ``inputs``."""
    rows = {ids: row for row, ids in enumerate(inputs)}
    padded = pad_sequence([torch.tensor(ids) for ids in inputs], batch_first=True)
    states = model.model(padded.to(model.device), use_cache=False).last_hidden_state
    return {
        answer: _score(model.lm_head(states[row, len(ids) - answer.tokens : len(ids)]), answer)
        for answer in answers
        if (row := rows.get(ids := answer.ids[:-1])) is not None
    }


def _score(logits: Tensor, answer: Answer) -> AnswerScore:
    """Of the logits (N, V) that the answer's N tokens are predicted from."""
    targets = torch.tensor(answer.ids[-answer.tokens :], device=logits.device)
    log_prob = -target_nll(logits[None], targets[None]).sum().item()
    return AnswerScore(log_prob, bool((logits.argmax(-1) == targets).all()))
