"""OpenBookQA: elementary science questions that need a fact and common sense."""

from __future__ import annotations

from typing import ClassVar, Self

from pydantic import Field, model_validator

from layerwright.tasks.evaluate.zero_shot import LabelledAnswers, Row, ZeroShot, check_answer_key


class OpenBookQARow(Row):
    question_stem: str
    choices: LabelledAnswers
    answer: str = Field(alias="answerKey")

    @model_validator(mode="after")
    def _has_a_right_answer(self) -> Self:
        check_answer_key(self.answer.lstrip(), self.choices)
        return self


class OpenBookQA(ZeroShot):
    """``task.<text>.acc``, ``task.<text>.acc_norm``: OpenBookQA (arXiv 1809.02789).

    The prompt does not include the facts of the "book". Rows: ``question_stem``, ``choices`` with
    ``text`` and ``label``, ``answerKey``.
    """

    name: ClassVar[str] = "openbookqa"
    folder: ClassVar[str] = "openbookqa"
    task: ClassVar[str] = "openbookqa"
    row: ClassVar[type[Row]] = OpenBookQARow
