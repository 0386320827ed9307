"""The user's own prompts: what is written, against references or against the base's own text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
from layerwright.tasks.probes.text_match import MATCHES, rouge_l
from layerwright.tasks.recipe.data import TextForm
from layerwright.tasks.records import Record, read_records


class Prompts(Metric):
    """``generation.<text>``: how well what is written matches; with length and repetition.

    Rows have a ``prompt``, and, unless ``match`` is ``agreement``, a ``reference`` or a list of
    ``references``, the best of which counts. A ``slice`` names the part that the row belongs to.
    ``exact`` and ``contains`` are right or wrong, case and white space aside; ``rouge_l`` is the F1
    of the longest common subsequence of words (Lin 2004); ``agreement`` is rouge_l against what the
    base wrote, which scores 1 itself.

    Attributes:
        text: a name under ``data``, with ``form: items``.
        chat: each prompt is a user's message, put into the tokenizer's chat template.
        limit: the first so many are asked; all where left out.
        stops: a text ends before the first of these.
        keep_texts: prompts and texts stay with the per-item results, and the worst are shown in
            the report; false keeps figures alone.
    """

    name: ClassVar[str] = "prompts"
    form: ClassVar[TextForm] = "items"

    text: str
    match: Literal["rouge_l", "exact", "contains", "agreement"] = "rouge_l"
    chat: bool = False
    limit: Annotated[int, Field(gt=0)] | None = None
    max_new_tokens: Annotated[int, Field(gt=0)] = 128
    stops: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    at_once: Annotated[int, Field(gt=0)] = 8
    keep_texts: bool = True

    def names(self) -> tuple[str, ...]:
        kinds = ("generation", "length_ratio", "repetition")
        return tuple(f"{kind}.{self.text}" for kind in kinds)

    def needed_texts(self) -> tuple[str, ...]:
        return (self.text,)

    def check_items(self, folders: Mapping[str, Path]) -> None:
        self._asked(folders)

    def estimate_tokens(self) -> int:
        return (self.limit or 100) * (100 + self.max_new_tokens)

    def measure(self, arms: Arms) -> Iterator[Figure]:
        asked = self._asked(arms.texts.folders)
        prompts = [record.text("prompt") for record in asked]
        tokenizer = arms.texts.tokenizer
        texts = written(
            arms,
            self.text,
            [encode(tokenizer, prompt, self.chat)[0].tolist() for prompt in prompts],
            max_new_tokens=self.max_new_tokens,
            stops=self.stops,
            at_once=self.at_once,
        )
        references = [self._references(record) for record in asked]
        if self.match == "agreement":
            references = [(one.text,) for one in texts["base"]]
        matches = rouge_l if self.match == "agreement" else MATCHES[self.match]
        for arm, mine in texts.items():
            items = []
            for index, (record, one, wanted) in enumerate(
                zip(asked, mine, references, strict=True)
            ):
                words = Words(
                    prompt=prompts[index][-PROMPT_END:],
                    expected=wanted[0].strip() if self.match != "agreement" else "",
                    said=one.text.strip(),
                )
                items.append(
                    Item(
                        f"item {index}",
                        matches(one.text, wanted),
                        slice=_slice(record),
                        words=words if self.keep_texts else None,
                    )
                )
            yield scored(
                f"generation.{self.text}",
                arm,
                items,
                unit="share",
                higher_is_better=True,
                seed=arms.seed_of(f"generation.{self.text}"),
                detail=f"{self.match}, at most {self.max_new_tokens} new tokens",
            )
        yield from length_and_repetition(arms, self.text, texts)

    def _asked(self, folders: Mapping[str, Path]) -> list[Record]:
        """The records that are asked.

        Raises:
            InputError: none, or one without prompt or, where it needs one, reference.
        """
        asked = list(read_records(folders[self.text], self.text))
        if not asked:
            raise InputError(f"{self.text!r} has no records", expected="at least one")
        for record in asked:
            record.text("prompt")
            self._references(record)
            _slice(record)
        return asked[: self.limit]

    def _references(self, record: Record) -> tuple[str, ...]:
        if self.match == "agreement":
            return ()
        if "references" in record.row:
            return record.texts("references", record.row["references"])
        return (record.text("reference"),)


def _slice(record: Record) -> str:
    return record.text("slice") if "slice" in record.row else ""
