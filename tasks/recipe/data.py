"""The recipe's `data` block: texts by name."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from layerwright.tasks.contracts.base import Contract, Share

TextForm = Literal["text", "items", "files"]


class TextSource(Contract):
    """Where a text comes from: the model's four kinds of source, or ``python-docs``.

    ``files`` are globs inside the source; ``field`` names the column or key that holds the text
    of Arrow, Parquet and JSON files (a ``messages`` field makes it chat data). ``part`` keeps the
    documents whose digest, as a fraction, falls in [low, high): disjoint parts never share one.

    ``form`` ``items`` keeps the rows of JSON, Arrow and Parquet files as they are, repeated ones
    too, for tasks with right and wrong answers; ``files`` keeps the files themselves.
    """

    source: str = Field(min_length=1)
    files: tuple[str, ...] = ("*",)
    field: str = "text"
    part: tuple[Share, Share] = (0.0, 1.0)
    form: TextForm = "text"

    @model_validator(mode="after")
    def _not_empty(self) -> TextSource:
        if self.part[0] >= self.part[1]:
            raise ValueError("a part [low, high] with low < high")
        return self
