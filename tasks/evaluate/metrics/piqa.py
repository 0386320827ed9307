"""PIQA: choose the solution that reaches a physical goal."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from layerwright.tasks.evaluate.zero_shot import AnswerText, Row, ZeroShot


class PIQARow(Row):
    goal: str
    sol1: AnswerText
    sol2: AnswerText
    label: Annotated[int, Field(ge=0, le=1)]


class PIQA(ZeroShot):
    """``task.<text>.acc``, ``task.<text>.acc_norm``: PIQA (arXiv 1911.11641).

    Rows: ``goal``, ``sol1``, ``sol2``, ``label``.
    """

    name: ClassVar[str] = "piqa"
    folder: ClassVar[str] = "piqa"
    task: ClassVar[str] = "piqa"
    row: ClassVar[type[Row]] = PIQARow
