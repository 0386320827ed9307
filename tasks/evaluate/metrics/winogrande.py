"""WinoGrande: which of two names a pronoun-like blank stands for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field

from layerwright.tasks.evaluate.zero_shot import Answer, Row, ZeroShot


def _has_a_blank(sentence: str) -> str:
    if not sentence.partition("_")[2].strip():
        raise ValueError("a sentence needs a blank (_), and words after it")
    return sentence


class WinoGrandeRow(Row):
    sentence: Annotated[str, AfterValidator(_has_a_blank)]
    option1: Answer
    option2: Answer
    answer: Annotated[str, Field(pattern="^[12]$", coerce_numbers_to_str=True)]


class WinoGrande(ZeroShot):
    """``task.<text>.acc``: WinoGrande (arXiv 1907.10641) by partial evaluation.

    Each name is put in the blank, and the likelihood of what follows it is compared
    (arXiv 1806.02847): the names' own likelihoods say nothing. Rows: ``sentence`` with ``_``,
    ``option1``, ``option2``, ``answer``.
    """

    name: ClassVar[str] = "winogrande"
    folder: ClassVar[str] = "winogrande"
    task: ClassVar[str] = "winogrande"
    row: ClassVar[type[Row]] = WinoGrandeRow
    figures: ClassVar[Mapping[str, str]] = {"acc": "task.{}.acc"}
