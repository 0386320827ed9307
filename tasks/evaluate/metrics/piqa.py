"""PIQA: choose the solution that reaches a physical goal."""

from typing import Annotated

from pydantic import Field

from layerwright.tasks.evaluate.zero_shot import AnswerText, Row, ZeroShot


class PIQARow(Row):
    goal: str
    sol1: AnswerText
    sol2: AnswerText
    label: Annotated[int, Field(ge=0, le=1)]


class PIQA(ZeroShot):
    """``task.<text>.acc``, ``task.<text>.acc_norm``: PIQA (arXiv 1911.11641)."""

    name = "piqa"
    row = PIQARow
