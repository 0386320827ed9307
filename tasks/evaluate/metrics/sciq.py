"""SciQ: science questions with a supporting passage."""

from __future__ import annotations

from typing import ClassVar

from layerwright.tasks.evaluate.zero_shot import AnswerText, Row, ZeroShot


class SciQRow(Row):
    support: str
    question: str
    distractor1: AnswerText
    distractor2: AnswerText
    distractor3: AnswerText
    correct_answer: AnswerText


class SciQ(ZeroShot):
    """``task.<text>.acc``, ``task.<text>.acc_norm``: SciQ (arXiv 1707.06209).

    Rows: ``support``, ``question``, ``distractor1`` to ``distractor3``, ``correct_answer``.
    """

    name: ClassVar[str] = "sciq"
    folder: ClassVar[str] = "sciq"
    task: ClassVar[str] = "sciq"
    row: ClassVar[type[Row]] = SciQRow
