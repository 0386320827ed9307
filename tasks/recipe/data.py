"""The recipe's `data` block: the source of each named text."""

from typing import Literal, Self

from pydantic import Field, model_validator

from layerwright.tasks.contracts.base import Contract, Share

TextForm = Literal["text", "items", "files"]


class TextSource(Contract):
    """The source of one text."""

    source: str = Field(min_length=1)  # an address as in ``model.source``, or ``python-docs``
    files: tuple[str, ...] = ("*",)  # globs inside the source
    field: str = "text"  # of Arrow, Parquet and JSON files; ``messages`` is chat data
    # documents whose digest, as a fraction of 1, is in [low, high)
    part: tuple[Share, Share] = (0.0, 1.0)
    # ``text`` keeps the text of each document. ``items`` keeps whole rows of JSON, Arrow and
    # Parquet files, duplicates included, for tasks with right and wrong answers. ``files`` keeps
    # the files unchanged.
    form: TextForm = "text"

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if self.part[0] >= self.part[1]:
            raise ValueError("a part [low, high] with low < high")
        return self
