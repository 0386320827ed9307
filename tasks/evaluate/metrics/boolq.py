"""BoolQ: yes or no, by a passage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import AliasChoices, Field

from layerwright.tasks.evaluate.questions import Question, Row, asked
from layerwright.tasks.evaluate.zero_shot import ACC, Score, ZeroShot


class BoolQRow(Row):
    passage: str
    asks: str = Field(alias="question")
    yes: bool = Field(validation_alias=AliasChoices("label", "answer"))

    def question(self) -> Question:
        context = f"{self.passage}\nQuestion: {self.asks}?\nAnswer:"
        return asked(context, ("no", "yes"), int(self.yes))


class BoolQ(ZeroShot):
    """``task.<text>.acc``: BoolQ (arXiv 1905.10044).

    Rows: ``passage``, ``question`` without its mark, and ``label`` (SuperGLUE) or ``answer``.
    """

    name: ClassVar[str] = "boolq"
    row: ClassVar[type[Row]] = BoolQRow
    scores: ClassVar[Mapping[str, Score]] = {"task.{}.acc": ACC}
