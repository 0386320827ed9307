"""LAMBADA: the last word of a passage, which only the whole passage gives away."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from layerwright.tasks.evaluate.answers import AnswerScore
from layerwright.tasks.evaluate.questions import Question, Row
from layerwright.tasks.evaluate.zero_shot import Score, ZeroShot


class LambadaRow(Row):
    text: str

    def question(self) -> Question:
        before, space, last = self.text.rpartition(" ")
        if not space:
            raise ValueError("a passage of one word")
        return Question(((before, f" {last}"),), 0, (len(last),))


def _greedy(question: Question, answers: tuple[AnswerScore, ...]) -> bool:
    return answers[0].greedy


def _nll(question: Question, answers: tuple[AnswerScore, ...]) -> float:
    return -answers[0].log_prob


class Lambada(ZeroShot):
    """``task.<text>.acc``, ``word_perplexity.<text>``: LAMBADA (arXiv 1606.06031).

    The share of last words that would be decoded greedily, and exp of their mean NLL per word in
    nats. Rows: ``text``.
    """

    name: ClassVar[str] = "lambada"
    row: ClassVar[type[Row]] = LambadaRow
    scores: ClassVar[Mapping[str, Score]] = {
        "task.{}.acc": Score(_greedy),
        "word_perplexity.{}": Score(
            _nll, unit="perplexity", higher_is_better=False, aggregate="exp_mean"
        ),
    }
