"""HellaSwag: choose the ending that continues a scene."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from layerwright.tasks.evaluate.zero_shot import AnswerText, Row, ZeroShot


class HellaSwagRow(Row):
    activity_label: str
    ctx_a: str
    ctx_b: str
    endings: tuple[AnswerText, ...]
    label: Annotated[int, Field(ge=0)]

    @model_validator(mode="after")
    def _has_a_right_ending(self) -> Self:
        if self.label >= len(self.endings):
            raise ValueError(f"label {self.label} of {len(self.endings)} endings")
        return self


class HellaSwag(ZeroShot):
    """``task.<text>.acc``, ``task.<text>.acc_norm``: HellaSwag (arXiv 1905.07830)."""

    name = "hellaswag"
    row = HellaSwagRow
