"""OpenBookQA: elementary science that needs a fact and common sense."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from layerwright.tasks.evaluate.questions import Lettered, Question, Row, asked
from layerwright.tasks.evaluate.zero_shot import ZeroShot


class OpenBookQARow(Row):
    stem: str = Field(alias="question_stem")
    choices: Lettered
    answer: str = Field(alias="answerKey")

    def question(self) -> Question:
        return asked(self.stem, self.choices.text, self.choices.place_of(self.answer.lstrip()))


class OpenBookQA(ZeroShot):
    """``task.<text>.acc``, ``task.<text>.acc_norm``: OpenBookQA (arXiv 1809.02789).

    Without the book. Rows: ``question_stem``, ``choices`` with ``text`` and ``label``,
    ``answerKey``.
    """

    name: ClassVar[str] = "openbookqa"
    row: ClassVar[type[Row]] = OpenBookQARow
