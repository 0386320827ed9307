"""ARC: grade-school science questions, the easy set or the challenge set."""

from __future__ import annotations

from typing import ClassVar, Self

from pydantic import Field, model_validator

from layerwright.tasks.evaluate.zero_shot import LabelledAnswers, Row, ZeroShot, check_answer_key


class ArcRow(Row):
    question: str
    choices: LabelledAnswers
    answer: str = Field(alias="answerKey")

    @model_validator(mode="after")
    def _has_a_right_answer(self) -> Self:
        check_answer_key(self.answer, self.choices)
        return self


class Arc(ZeroShot):
    """``task.<text>.acc``, ``task.<text>.acc_norm``: ARC (arXiv 1803.05457).

    Rows: ``question``, ``choices`` with ``text`` and ``label``, ``answerKey``.
    """

    name: ClassVar[str] = "arc"
    folder: ClassVar[str] = "arc"
    task: ClassVar[str] = "arc_easy"  # arc_challenge has the same prompts
    row: ClassVar[type[Row]] = ArcRow
