"""WinoGrande: choose which of two names fills the blank in a sentence."""

from typing import Annotated

from pydantic import AfterValidator, Field

from layerwright.tasks.evaluate.zero_shot import AnswerText, Row, ZeroShot


def _has_a_blank(sentence: str) -> str:
    if not sentence.partition("_")[2].strip():
        raise ValueError("a sentence needs a blank (_), and words after it")
    return sentence


class WinoGrandeRow(Row):
    sentence: Annotated[str, AfterValidator(_has_a_blank)]
    option1: AnswerText
    option2: AnswerText
    answer: Annotated[str, Field(pattern="^[12]$", coerce_numbers_to_str=True)]


class WinoGrande(ZeroShot):
    """``task.<text>.acc``: WinoGrande (arXiv 1907.10641) by partial evaluation.

    Partial evaluation (arXiv 1806.02847) puts each name in the blank and compares the likelihood of
    the text after it, because the likelihoods of the names themselves are not comparable.
    """

    name = "winogrande"
    row = WinoGrandeRow
    figures = {"acc": "task.{}.acc"}
