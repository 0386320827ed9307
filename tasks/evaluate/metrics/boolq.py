"""BoolQ: yes/no questions about a passage."""

from typing import Annotated

from pydantic import AliasChoices, Field

from layerwright.tasks.evaluate.zero_shot import Row, ZeroShot


class BoolQRow(Row):
    """The question has no question mark. The label is ``label`` in SuperGLUE, else ``answer``."""

    passage: str
    question: str
    label: Annotated[int, Field(ge=0, le=1, validation_alias=AliasChoices("label", "answer"))]


class BoolQ(ZeroShot):
    """``task.<text>.acc``: BoolQ (arXiv 1905.10044)."""

    name = "boolq"
    folder = "super_glue/boolq"
    row = BoolQRow
    figures = {"acc": "task.{}.acc"}
