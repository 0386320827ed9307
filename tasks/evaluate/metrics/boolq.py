"""BoolQ: yes/no questions about a passage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import AliasChoices, Field

from layerwright.tasks.evaluate.zero_shot import Row, ZeroShot


class BoolQRow(Row):
    passage: str
    question: str
    label: Annotated[int, Field(ge=0, le=1, validation_alias=AliasChoices("label", "answer"))]


class BoolQ(ZeroShot):
    """``task.<text>.acc``: BoolQ (arXiv 1905.10044).

    Rows: ``passage``, ``question`` without a question mark, and ``label`` (SuperGLUE) or
    ``answer``.
    """

    name: ClassVar[str] = "boolq"
    folder: ClassVar[str] = "super_glue/boolq"
    task: ClassVar[str] = "boolq"
    row: ClassVar[type[Row]] = BoolQRow
    figures: ClassVar[Mapping[str, str]] = {"acc": "task.{}.acc"}
