"""Per-item results: what each arm made of each item, kept beside every evaluation."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import model_validator

from layerwright.tasks.contracts.base import Contract
from layerwright.tasks.contracts.evaluation import Arm

ITEMS = "items.jsonl"


class Words(Contract):
    """An item in words: what is asked (``prompt``, its end), what is ``expected`` where there is
    an answer, and what the arm ``said``."""

    prompt: str
    expected: str = ""
    said: str


class ItemResult(Contract):
    """One arm's result on one item.

    Attributes:
        metric: name of the measurement that it is part of.
        item: the item's id, the same in every arm.
        value: the figure on this item; None means that it could not be measured. Where the item is
            right or wrong it is 1 or 0.
        correct: right or wrong, where the item is one of the two.
        weight: how much it counts in the measurement, for instance its tokens.
        slice: the part of the items that it belongs to, for instance its positions.
        words: question and answer, where they can be read and were to be kept.
    """

    metric: str
    arm: Arm
    item: str
    value: float | None = None
    correct: bool | None = None
    weight: float = 1.0
    slice: str = ""
    words: Words | None = None

    @model_validator(mode="before")
    @classmethod
    def _right_counts_one(cls, given: dict[str, Any]) -> dict[str, Any]:
        correct = given.get("correct")
        return given if correct is None else given | {"value": float(correct)}


def write_items(folder: Path, items: Iterable[ItemResult]) -> None:
    """One item a line, without what is at its default."""
    with (folder / ITEMS).open("w", encoding="utf-8") as file:
        for item in items:
            file.write(item.model_dump_json(exclude_defaults=True) + "\n")


def read_items(folder: Path) -> tuple[ItemResult, ...]:
    with (folder / ITEMS).open(encoding="utf-8") as file:
        return tuple(ItemResult.model_validate_json(line) for line in file)
