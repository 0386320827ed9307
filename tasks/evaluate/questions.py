"""Questions with their answers as text pairs, out of the rows of a task's own format."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict


@dataclass(frozen=True)
class Question:
    """What the likelihood of each answer is asked for.

    Attributes:
        pairs: of each answer, what stands before it and itself, with the space between.
        gold: index of the right answer.
        characters: of each answer, the space not counted; what ``acc_norm`` divides by.
    """

    pairs: tuple[tuple[str, str], ...]
    gold: int
    characters: tuple[int, ...]

    def __post_init__(self) -> None:
        if not 0 <= self.gold < len(self.pairs):
            raise ValueError(f"right answer {self.gold} of {len(self.pairs)} answers")
        if not all(continuation.strip() for _, continuation in self.pairs):
            raise ValueError("an answer is empty")


def asked(context: str, answers: Sequence[str], gold: int) -> Question:
    """One context, and answers that follow it after a space."""
    pairs = tuple((context, f" {answer}") for answer in answers)
    return Question(pairs, gold, tuple(map(len, answers)))


class Row(BaseModel):
    """One row of a task, as its publishers write it; fields that are not needed are ignored."""

    model_config = ConfigDict(frozen=True)

    @abstractmethod
    def question(self) -> Question:
        """In the prompt format of lm-eval.

        Raises:
            ValueError: the row has no right answer, or an empty one.
        """


class Lettered(BaseModel):
    """Answers and their labels, as ARC and OpenBookQA have them."""

    text: tuple[str, ...]
    label: tuple[str, ...]

    def place_of(self, answer_key: str) -> int:
        if answer_key not in self.label:
            raise ValueError(f"answerKey {answer_key!r} is none of {', '.join(self.label)}")
        return self.label.index(answer_key)
