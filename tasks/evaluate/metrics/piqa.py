"""PIQA: which of two ways to do a thing works."""

from __future__ import annotations

from typing import ClassVar

from layerwright.tasks.evaluate.questions import Question, Row, asked
from layerwright.tasks.evaluate.zero_shot import ZeroShot


class PIQARow(Row):
    goal: str
    sol1: str
    sol2: str
    label: int

    def question(self) -> Question:
        return asked(f"Question: {self.goal}\nAnswer:", (self.sol1, self.sol2), self.label)


class PIQA(ZeroShot):
    """``task.<text>.acc``, ``task.<text>.acc_norm``: PIQA (arXiv 1911.11641).

    Rows: ``goal``, ``sol1``, ``sol2``, ``label``.
    """

    name: ClassVar[str] = "piqa"
    row: ClassVar[type[Row]] = PIQARow
