"""Read the user's JSON rows as records, which keep file and line for messages."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from layerwright.tasks.errors import InputError
from layerwright.tasks.passes.batches import DOCUMENTS


@dataclass(frozen=True)
class Record:
    """One row. ``at`` is its file and line: ``quiz.jsonl:12``."""

    at: str
    row: dict[str, Any]

    def text(self, field: str) -> str:
        """The text of a field, as ``texts``."""
        return self.texts(field, (self.row.get(field),))[0]

    def texts(self, field: str, values: Any) -> tuple[str, ...]:
        """The texts in a field's ``values``.

        Raises:
            InputError: there are no values, or a value is blank or not a string; the error names
                file, line and field.
        """
        if not isinstance(values, list | tuple) or not values or not all(map(_is_text, values)):
            there = f"the row has {', '.join(map(str, self.row)) or 'no fields'}"
            raise InputError(
                "no text" if field in self.row else there,
                where=f"{self.at}: {field}",
                expected="a string that is not blank",
            )
        # JSON allows a lone surrogate, UTF-8 does not
        return tuple(value.encode("utf-8", errors="replace").decode() for value in values)


def read_records(folder: Path, what: str) -> Iterator[Record]:
    """The rows of the text ``what`` of the recipe, which must have ``form: items``, in order."""
    with (folder / DOCUMENTS).open(encoding="utf-8") as file:
        for document in map(json.loads, file):
            if "item" not in document:
                raise InputError(
                    f"{what!r} was fetched as a text, not as rows",
                    where=f"data.{what}.form",
                    expected="form: items",
                )
            yield Record(document["at"], document["item"])


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())
