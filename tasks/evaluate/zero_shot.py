"""What all zero-shot tasks share: rows to questions, every arm's likelihoods, right or wrong."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field, ValidationError

from layerwright.tasks.contracts.evaluation import Aggregate
from layerwright.tasks.errors import InputError
from layerwright.tasks.evaluate.answers import AnswerScore, answer_scores, encoded
from layerwright.tasks.evaluate.arms import Arms
from layerwright.tasks.evaluate.base import Figure, Metric
from layerwright.tasks.evaluate.questions import Question, Row
from layerwright.tasks.evaluate.scoring import Item, scored
from layerwright.tasks.recipe.data import TextForm
from layerwright.tasks.records import read_records

Answers = tuple[AnswerScore, ...]


@dataclass(frozen=True)
class Score:
    """One figure of a task: what it makes of a question, and what its mean is."""

    of: Callable[[Question, Answers], float | bool]
    unit: str = "share"
    higher_is_better: bool = True
    aggregate: Aggregate = "mean"


def _likeliest(question: Question, answers: Answers) -> bool:
    return int(np.argmax([answer.log_prob for answer in answers])) == question.gold


def _likeliest_by_length(question: Question, answers: Answers) -> bool:
    per_character = [a.log_prob / n for a, n in zip(answers, question.characters, strict=True)]
    return int(np.argmax(per_character)) == question.gold


ACC, ACC_NORM = Score(_likeliest), Score(_likeliest_by_length)


class ZeroShot(Metric):
    """Multiple choice by log-likelihood, without examples; figures and prompts are lm-eval's.

    ``acc``: share of questions whose right answer has the largest log-likelihood (a sum over its
    tokens). ``acc_norm``: the same with each divided by the answer's characters. A tier takes
    ``acc_norm`` for the task where there is one.

    Attributes:
        texts: names under ``data``, each with ``form: items``; the figures bear their names.
        limit: the first so many rows of each; all where left out.
        slice_by: a field of the rows, whose values are the slices.
    """

    form: ClassVar[TextForm] = "items"
    row: ClassVar[type[Row]]
    # by the figure's name, {} for the text's
    scores: ClassVar[Mapping[str, Score]] = {"task.{}.acc": ACC, "task.{}.acc_norm": ACC_NORM}

    texts: Annotated[tuple[str, ...], Field(min_length=1)]
    limit: Annotated[int, Field(gt=0)] | None = None
    slice_by: str | None = None

    def names(self) -> tuple[str, ...]:
        return tuple(name.format(text) for text in self.texts for name in self.scores)

    def needed_texts(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.texts))

    def check_items(self, folders: Mapping[str, Path]) -> None:
        for text in self.texts:
            rows = (record.row for record in read_records(folders[text], text))
            deque(self._asked(islice(rows, self.limit), text), maxlen=0)  # only to be read

    def estimate_tokens(self) -> int:
        return len(self.texts) * (self.limit or 1000) * 4 * 50  # four answers of fifty tokens

    def measure(self, arms: Arms) -> Iterator[Figure]:
        for text in self.texts:
            rows = islice(arms.texts.items(text), self.limit)
            found = list(self._asked(rows, text))
            questions, slices = [q for q, _ in found], [s for _, s in found]
            answers = [encoded(question, arms.texts.tokenizer) for question in questions]
            order = sorted(range(len(answers)), key=lambda i: -max(len(a.ids) for a in answers[i]))
            for arm in arms.names:
                by_length = arms.remembered(
                    arm,
                    self.name,
                    [text, self.limit],
                    [answers[i] for i in order],
                    answer_scores,
                    what=f"{arm}: {text}",
                )
                given = {
                    i: tuple(AnswerScore(*score) for score in scores)
                    for i, scores in zip(order, by_length, strict=True)
                }
                lost = sum(not _finite(scores) for scores in given.values())
                for name, score in self.scores.items():
                    metric = name.format(text)
                    yield scored(
                        metric,
                        arm,
                        [
                            Item(
                                f"item {i}",
                                score.of(question, given[i]) if _finite(given[i]) else math.nan,
                                slice=slices[i],
                            )
                            for i, question in enumerate(questions)
                        ],
                        unit=score.unit,
                        higher_is_better=score.higher_is_better,
                        seed=arms.seed_of(metric),
                        aggregate=score.aggregate,
                        detail=f"{self.name}, {len(questions):,} questions, no examples",
                        not_finite="the likelihood of an answer is not finite on "
                        f"{lost} of {len(questions)} questions",
                    )

    def _asked(self, rows: Iterable[dict[str, Any]], text: str) -> Iterator[tuple[Question, str]]:
        """The rows as questions, each with its slice."""
        for number, row in enumerate(rows, 1):
            try:
                question = self.row.model_validate(row).question()
                part = str(row[self.slice_by]) if self.slice_by else ""
            except (ValueError, KeyError) as error:
                raise InputError(
                    f"row {number} of {text!r} is no {self.name} question: {_said(error)}",
                    where=f"data.{text}",
                    remedy=f"`{self.name}` reads the rows as their publishers write them: see "
                    "docs/evaluation.md",
                ) from error
            yield question, part


def _finite(answers: Answers) -> bool:
    return all(math.isfinite(answer.log_prob) for answer in answers)


def _said(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return f"no field {error}" if isinstance(error, KeyError) else str(error)
