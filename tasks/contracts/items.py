"""Per-item results: each arm's result on each item, stored with every evaluation."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import model_validator

from layerwright.tasks.contracts.base import Contract
from layerwright.tasks.contracts.evaluation import Arm

ITEMS = "items.jsonl"


class Words(Contract):
    """The text of an item."""

    prompt: str  # its end
    expected: str = ""  # the right answer, if there is one
    said: str  # the arm's answer


class ItemResult(Contract):
    """One arm's result on one item."""

    metric: str  # name of the measurement that the item belongs to
    arm: Arm
    item: str  # the item's id, the same in every arm
    value: float | None = None  # 1 or 0 if ``correct`` is set; None if it could not be measured
    correct: bool | None = None  # None if the metric has no right or wrong answers
    weight: float = 1.0  # the item's weight in the measurement, for instance its number of tokens
    slice: str = ""  # the group that the item belongs to, for instance a range of token positions
    words: Words | None = None  # question and answer, if the metric keeps them

    @model_validator(mode="before")
    @classmethod
    def _value_follows_correct(cls, given: dict[str, Any]) -> dict[str, Any]:
        correct = given.get("correct")
        return given if correct is None else given | {"value": float(correct)}


def write_items(folder: Path, items: Iterable[ItemResult]) -> None:
    """Write one item per line, without fields at their defaults."""
    with (folder / ITEMS).open("w", encoding="utf-8") as file:
        for item in items:
            file.write(item.model_dump_json(exclude_defaults=True) + "\n")


def read_items(folder: Path) -> tuple[ItemResult, ...]:
    with (folder / ITEMS).open(encoding="utf-8") as file:
        return tuple(ItemResult.model_validate_json(line) for line in file)
