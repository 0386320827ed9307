"""The user's prompts: compare generated texts with references, or with the base's text."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from layerwright.tasks.errors import InputError
from layerwright.tasks.evaluate import generation
from layerwright.tasks.evaluate.arms import Arms
from layerwright.tasks.evaluate.base import Count, Figure, Item, Metric, scored
from layerwright.tasks.probes.text_match import MATCHES, rouge_l
from layerwright.tasks.records import Record, read_records


class Prompts(Metric):
    """``generation.<text>``: match of generated texts; with length and repetition.

    Rows have a ``prompt`` and, unless ``match`` is ``agreement``, a ``reference`` or a list of
    ``references``, of which the best match counts. ``slice`` (optional) names the group of a row.

    Attributes:
        text: a name under ``data``, with ``form: items``.
        match: ``exact`` and ``contains`` ignore case and white space; ``rouge_l`` is the F1 of the
            longest common subsequence of words (Lin 2004); ``agreement`` is rouge_l against the
            base's text, so the base scores 1.
        chat: whether each prompt is a user message for the tokenizer's chat template.
        limit: evaluate only the first rows, this many; None: all.
        stops: a generated text ends before the first of these strings.
        at_once: prompts of a batch.
        keep_texts: whether prompts and texts are stored with the item results, so that the report
            can show the worst; false stores only values.
    """

    name = "prompts"
    presentation = generation.PRESENTATION
    form = "items"

    text: str
    match: Literal["rouge_l", "exact", "contains", "agreement"] = "rouge_l"
    chat: bool = False
    limit: Count | None = None
    max_new_tokens: Count = 128
    stops: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    at_once: Count = 8
    keep_texts: bool = True

    def names(self) -> tuple[str, ...]:
        return tuple(f"{kind}.{self.text}" for kind in generation.PRESENTATION)

    def needed_texts(self) -> tuple[str, ...]:
        return (self.text,)

    def check_items(self, folders: Mapping[str, Path]) -> None:
        self._records(folders)

    def estimate_tokens(self) -> int:
        return (self.limit or 100) * (100 + self.max_new_tokens)

    def measure(self, arms: Arms) -> Iterator[Figure]:
        records, metric = self._records(arms.texts.folders), f"generation.{self.text}"
        texts = generation.generate(
            arms,
            self.text,
            [record.text("prompt") for record in records],
            chat=self.chat,
            max_new_tokens=self.max_new_tokens,
            stops=self.stops,
            at_once=self.at_once,
        )
        matches = MATCHES.get(self.match, rouge_l)
        for arm, own in texts.items():
            items = []
            for index, (record, answer) in enumerate(zip(records, own, strict=True)):
                expected = self._references(record)
                first = expected[0] if expected else ""
                words = generation.words(record.text("prompt"), first, answer.text)
                score = matches(answer.text, expected or (texts["base"][index].text,))
                kept = words if self.keep_texts else None
                items.append(Item(f"item {index}", score, slice=_slice(record), words=kept))
            seed = arms.seed_of(metric)
            detail = f"{self.match}, at most {self.max_new_tokens} new tokens"
            yield scored(metric, arm, items, "share", seed, higher_is_better=True, detail=detail)
        yield from generation.length_and_repetition(arms, self.text, texts)

    def _records(self, folders: Mapping[str, Path]) -> list[Record]:
        """Return the records to evaluate.

        Raises:
            InputError: there is no record, or a record lacks its prompt or reference.
        """
        records = list(read_records(folders[self.text], self.text))
        if not records:
            raise InputError(f"{self.text!r} has no records", expected="at least one record")
        for record in records:
            record.text("prompt")
            self._references(record)
            _slice(record)
        return records[: self.limit]

    def _references(self, record: Record) -> tuple[str, ...]:
        """The references; none for ``agreement``, which compares with the base's text."""
        if self.match == "agreement":
            return ()
        if "references" in record.row:
            return record.texts("references", record.row["references"])
        return (record.text("reference"),)


def _slice(record: Record) -> str:
    return record.text("slice") if "slice" in record.row else ""
