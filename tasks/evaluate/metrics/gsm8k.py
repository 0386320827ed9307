"""GSM8K: grade-school mathematics with worked examples; compares the final number."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from layerwright.tasks.errors import InputError
from layerwright.tasks.evaluate import generation
from layerwright.tasks.evaluate.arms import Arms
from layerwright.tasks.evaluate.base import Count, Figure, Item, Metric, scored, shown
from layerwright.tasks.records import Record, read_records

# prompt, stops, patterns and ignored characters equal those of lm-eval's task gsm8k, version 3
STOPS = ("Question:", "</s>", "<|im_end|>")
STRICT = re.compile(r"#### (\-?[0-9\.\,]+)")
FLEXIBLE = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")
IGNORED = tuple(map(re.compile, (",", r"\$", r"(?s).*#### ", r"\.$")))

Reading = Literal["strict", "flexible"]


class Gsm8k(Metric):
    """Share of right final numbers (GSM8K, arXiv 2110.14168), with length and repetition.

    - ``generation.<text>``: by the reading ``reading``; the tiers of a gate use this figure.
    - ``exact_match.<text>.<reading>``: by the other reading.

    Rows have ``question`` and ``answer``, which ends in ``#### number``. The strict reading takes
    the number after the first ``####`` of a generated text, the flexible reading its last number.

    Attributes:
        text: a name under ``data``, with ``form: items``.
        examples: another such name, whose first ``shots`` rows are the worked examples; None: the
            first rows of ``text``, which are then not evaluated.
        limit: evaluate only the first rows, this many; None: all.
        reading: the reading of ``generation.<text>``.
        at_once: prompts of a batch.
    """

    name = "gsm8k"
    presentation = generation.PRESENTATION | {
        "exact_match": shown("Exact match", "share of correct answers, extracted by another rule")
    }
    form = "items"

    text: str
    examples: str | None = None
    shots: Annotated[int, Field(ge=0)] = 5
    limit: Count | None = None
    reading: Reading = "strict"
    max_new_tokens: Count = 256
    at_once: Count = 8

    def names(self) -> tuple[str, ...]:
        return (*self._figures(), f"length_ratio.{self.text}", f"repetition.{self.text}")

    def _figures(self) -> dict[str, Reading]:
        """The reading of each figure; the figure of ``reading`` comes first."""
        other: Reading = "flexible" if self.reading == "strict" else "strict"
        return {f"generation.{self.text}": self.reading, f"exact_match.{self.text}.{other}": other}

    def needed_texts(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((self.text, self.examples or self.text)))

    def check_items(self, folders: Mapping[str, Path]) -> None:
        self._records(folders)

    def estimate_tokens(self) -> int:
        return (self.limit or 1000) * (100 * (self.shots + 1) + self.max_new_tokens)

    def measure(self, arms: Arms) -> Iterator[Figure]:
        shots, records = self._records(arms.texts.folders)
        examples = [f"{question(record)} {record.text('answer')}" for record in shots]
        texts = generation.generate(
            arms,
            self.text,
            ["\n\n".join([*examples, question(record)]) for record in records],
            max_new_tokens=self.max_new_tokens,
            stops=STOPS,
            at_once=self.at_once,
        )
        for arm, own in texts.items():
            for metric, reading in self._figures().items():
                items = []
                for index, (record, answer) in enumerate(zip(records, own, strict=True)):
                    expected = record.text("answer")
                    final = expected.split("####")[-1]
                    words = generation.words(question(record), final, answer.text)
                    is_right = right(READINGS[reading](answer.text), expected)
                    kept = words if reading == self.reading else None
                    items.append(Item(f"item {index}", is_right, words=kept))
                seed, most = arms.seed_of(metric), f"at most {self.max_new_tokens} new tokens"
                how = f"{reading}, {self.shots} examples, {most}"
                yield scored(metric, arm, items, "share", seed, higher_is_better=True, detail=how)
        yield from generation.length_and_repetition(arms, self.text, texts)

    def _records(self, folders: Mapping[str, Path]) -> tuple[list[Record], list[Record]]:
        """Return the worked examples, and the records to evaluate.

        Raises:
            InputError: there are too few records, or a record has no question or final number.
        """
        records = list(read_records(folders[self.text], self.text))
        if self.examples is None:
            shots, records = records[: self.shots], records[self.shots :]
        else:
            shots = list(read_records(folders[self.examples], self.examples))[: self.shots]
        if len(shots) < self.shots or not records:
            raise InputError(
                f"{self.text!r} has too few records for {self.shots} examples and a question",
                expected=f"more than {self.shots} records",
            )
        for record in (*shots, *records):
            record.text("question")
            if not STRICT.search(record.text("answer")):
                raise InputError(
                    "the answer has no final number",
                    where=f"{record.at}: answer",
                    expected="#### and a number",
                )
        return shots, records[: self.limit]


def question(record: Record) -> str:
    return f"Question: {record.text('question')}\nAnswer:"


def strict(text: str) -> str:
    """The number after the first ``####``; empty if there is none."""
    return next((number.strip() for number in STRICT.findall(text)), "")


def flexible(text: str) -> str:
    """The last number; empty if there is none."""
    numbers = FLEXIBLE.findall(text)
    return next((part.strip() for part in numbers[-1] if part), "") if numbers else ""


READINGS = {"strict": strict, "flexible": flexible}


def right(number: str, answer: str) -> bool:
    """Whether a number equals the answer's final number, without commas, $ and a last full stop."""
    for pattern in IGNORED:
        number, answer = pattern.sub("", number), pattern.sub("", answer)
    return number != "" and number.lower() == answer.lower()
