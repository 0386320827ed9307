"""HellaSwag: which ending a scene goes on with."""

from __future__ import annotations

import re
from typing import ClassVar

from layerwright.tasks.evaluate.questions import Question, Row, asked
from layerwright.tasks.evaluate.zero_shot import ZeroShot


class HellaSwagRow(Row):
    activity_label: str
    ctx_a: str
    ctx_b: str
    endings: tuple[str, ...]
    label: int

    def question(self) -> Question:
        scene = f"{self.activity_label}: {self.ctx_a} {self.ctx_b.capitalize()}"
        return asked(_clean(scene), tuple(map(_clean, self.endings)), self.label)


def _clean(text: str) -> str:
    """Without the marks of WikiHow, from which half of the rows come."""
    text = re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". "))
    return text.replace("  ", " ")


class HellaSwag(ZeroShot):
    """``task.<text>.acc``, ``task.<text>.acc_norm``: HellaSwag (arXiv 1905.07830).

    Rows: ``activity_label``, ``ctx_a``, ``ctx_b``, ``endings``, ``label``.
    """

    name: ClassVar[str] = "hellaswag"
    row: ClassVar[type[Row]] = HellaSwagRow
