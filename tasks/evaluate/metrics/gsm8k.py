"""Grade-school mathematics: worked examples, a question, and the number that the answer ends on."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from layerwright.tasks.contracts.items import Words
from layerwright.tasks.errors import InputError
from layerwright.tasks.evaluate.arms import Arms
from layerwright.tasks.evaluate.base import Figure, Metric
from layerwright.tasks.evaluate.generation import PROMPT_END, length_and_repetition, written
from layerwright.tasks.evaluate.scoring import Item, scored
from layerwright.tasks.offload.generation import encode
from layerwright.tasks.recipe.data import TextForm
from layerwright.tasks.records import Record, read_records

# prompt, stops, patterns and what is ignored are those of lm-eval's task gsm8k, version 3
STOPS = ("Question:", "</s>", "<|im_end|>")
STRICT = re.compile(r"#### (\-?[0-9\.\,]+)")
FLEXIBLE = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")
IGNORED = tuple(map(re.compile, (",", r"\$", r"(?s).*#### ", r"\.$")))

Reading = Literal["strict", "flexible"]


class Gsm8k(Metric):
    """``generation.<text>``: share of final numbers that are right (arXiv 2110.14168), by one
    reading, and ``exact_match.<text>.<reading>`` by the other; with length and repetition.

    Rows have ``question`` and ``answer``, which ends on ``#### number``. Strict takes the number
    behind the first ``####``, flexible the last number of all.

    Attributes:
        text: a name under ``data``, with ``form: items``.
        examples: the like, whose first ``shots`` rows are the worked examples; those of ``text``
            where left out, which are then not asked.
        limit: the first so many are asked; all where left out.
        reading: whose figure is ``generation.<text>``, which a tier counts.
    """

    name: ClassVar[str] = "gsm8k"
    form: ClassVar[TextForm] = "items"

    text: str
    examples: str | None = None
    shots: Annotated[int, Field(ge=0)] = 5
    limit: Annotated[int, Field(gt=0)] | None = None
    reading: Reading = "strict"
    max_new_tokens: Annotated[int, Field(gt=0)] = 256
    at_once: Annotated[int, Field(gt=0)] = 8

    def names(self) -> tuple[str, ...]:
        return (
            *self._figures(),
            *(f"{kind}.{self.text}" for kind in ("length_ratio", "repetition")),
        )

    def _figures(self) -> dict[str, Reading]:
        """Exact match by either reading, under its name; that of ``reading`` first."""
        other: Reading = "flexible" if self.reading == "strict" else "strict"
        return {
            f"generation.{self.text}": self.reading,
            f"exact_match.{self.text}.{other}": other,
        }

    def needed_texts(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((self.text, self.examples or self.text)))

    def check_items(self, folders: Mapping[str, Path]) -> None:
        self._asked(folders)

    def estimate_tokens(self) -> int:
        return (self.limit or 1000) * (100 * (self.shots + 1) + self.max_new_tokens)

    def measure(self, arms: Arms) -> Iterator[Figure]:
        shown, asked = self._asked(arms.texts.folders)
        examples = [f"Question: {r.text('question')}\nAnswer: {r.text('answer')}" for r in shown]
        prompts = ["\n\n".join([*examples, question(record)]) for record in asked]
        texts = written(
            arms,
            self.text,
            [encode(arms.texts.tokenizer, prompt, chat=False)[0].tolist() for prompt in prompts],
            max_new_tokens=self.max_new_tokens,
            stops=STOPS,
            at_once=self.at_once,
        )
        for arm, mine in texts.items():
            for metric, reading in self._figures().items():
                yield scored(
                    metric,
                    arm,
                    [
                        Item(
                            f"item {index}",
                            right(READINGS[reading](one.text), record.text("answer")),
                            words=_words(record, one.text) if reading == self.reading else None,
                        )
                        for index, (record, one) in enumerate(zip(asked, mine, strict=True))
                    ],
                    unit="share",
                    higher_is_better=True,
                    seed=arms.seed_of(metric),
                    detail=f"{reading}, {self.shots} examples, at most {self.max_new_tokens} "
                    "new tokens",
                )
        yield from length_and_repetition(arms, self.text, texts)

    def _asked(self, folders: Mapping[str, Path]) -> tuple[list[Record], list[Record]]:
        """The worked examples, and the records that are asked.

        Raises:
            InputError: too few, or one without a question or a final number.
        """
        asked = list(read_records(folders[self.text], self.text))
        if self.examples is None:
            shown, asked = asked[: self.shots], asked[self.shots :]
        else:
            shown = list(read_records(folders[self.examples], self.examples))[: self.shots]
        if len(shown) < self.shots or not asked:
            raise InputError(
                f"{self.text!r} has too few records for {self.shots} examples and a question",
                expected=f"more than {self.shots} records",
            )
        for record in (*shown, *asked):
            record.text("question")
            if not STRICT.search(record.text("answer")):
                raise InputError(
                    "no final number", where=f"{record.at}: answer", expected="#### and a number"
                )
        return shown, asked[: self.limit]


def question(record: Record) -> str:
    return f"Question: {record.text('question')}\nAnswer:"


def strict(text: str) -> str:
    """The number behind the first ``####``; empty where there is none."""
    found = STRICT.findall(text)
    return found[0].strip() if found else ""


def flexible(text: str) -> str:
    """The last number; empty where there is none."""
    found = FLEXIBLE.findall(text)
    return next((part.strip() for part in found[-1] if part), "") if found else ""


READINGS: dict[Reading, Callable[[str], str]] = {"strict": strict, "flexible": flexible}


def right(number: str, answer: str) -> bool:
    """Whether a number is the one that the answer ends on; commas, dollars, a last stop aside."""
    for pattern in IGNORED:
        number, answer = pattern.sub("", number), pattern.sub("", answer)
    return number != "" and number.lower() == answer.lower()


def _words(record: Record, said: str) -> Words:
    expected = record.text("answer").split("####")[-1].strip()
    return Words(prompt=question(record)[-PROMPT_END:], expected=expected, said=said.strip())
