"""WinoGrande: which of two names a pronoun-like blank stands for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from layerwright.tasks.evaluate.questions import Question, Row
from layerwright.tasks.evaluate.zero_shot import ACC, Score, ZeroShot


class WinoGrandeRow(Row):
    sentence: str
    option1: str
    option2: str
    answer: int

    def question(self) -> Question:
        before, blank, after = self.sentence.partition("_")
        if not blank:
            raise ValueError("a sentence without a blank (_)")
        rest = f" {after.strip()}"
        pairs = tuple((before + option, rest) for option in (self.option1, self.option2))
        return Question(pairs, self.answer - 1, (len(rest) - 1,) * 2)


class WinoGrande(ZeroShot):
    """``task.<text>.acc``: WinoGrande (arXiv 1907.10641) by partial evaluation.

    Each name is put in the blank, and the likelihood of what follows it is compared
    (arXiv 1806.02847): the names' own likelihoods say nothing. Rows: ``sentence`` with ``_``,
    ``option1``, ``option2``, ``answer``.
    """

    name: ClassVar[str] = "winogrande"
    row: ClassVar[type[Row]] = WinoGrandeRow
    scores: ClassVar[Mapping[str, Score]] = {"task.{}.acc": ACC}
