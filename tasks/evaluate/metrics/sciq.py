"""SciQ: science questions with the passage that answers them."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from layerwright.tasks.evaluate.questions import Question, Row, asked
from layerwright.tasks.evaluate.zero_shot import ZeroShot


class SciQRow(Row):
    support: str
    asks: str = Field(alias="question")
    distractor1: str
    distractor2: str
    distractor3: str
    correct_answer: str

    def question(self) -> Question:
        answers = (self.distractor1, self.distractor2, self.distractor3, self.correct_answer)
        context = f"{self.support.lstrip()}\nQuestion: {self.asks}\nAnswer:"
        return asked(context, answers, gold=3)


class SciQ(ZeroShot):
    """``task.<text>.acc``, ``task.<text>.acc_norm``: SciQ (arXiv 1707.06209).

    Rows: ``support``, ``question``, ``distractor1`` to ``distractor3``, ``correct_answer``.
    """

    name: ClassVar[str] = "sciq"
    row: ClassVar[type[Row]] = SciQRow
