"""ARC: grade-school science questions, easy and challenge."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from layerwright.tasks.evaluate.questions import Lettered, Question, Row, asked
from layerwright.tasks.evaluate.zero_shot import ZeroShot


class ArcRow(Row):
    asks: str = Field(alias="question")
    choices: Lettered
    answer: str = Field(alias="answerKey")

    def question(self) -> Question:
        gold = self.choices.place_of(self.answer)
        return asked(f"Question: {self.asks}\nAnswer:", self.choices.text, gold)


class Arc(ZeroShot):
    """``task.<text>.acc``, ``task.<text>.acc_norm``: ARC (arXiv 1803.05457).

    As lm-eval's ``arc_easy`` and ``arc_challenge`` ask it. Rows: ``question``, ``choices`` with
    ``text`` and ``label``, ``answerKey``.
    """

    name: ClassVar[str] = "arc"
    row: ClassVar[type[Row]] = ArcRow
