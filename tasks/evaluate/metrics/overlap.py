"""Overlap of an evaluation text with the finetuning text."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from layerwright.tasks.contracts.evaluation import Presentation
from layerwright.tasks.evaluate.arms import Arms
from layerwright.tasks.evaluate.base import Figure, Metric, measured
from layerwright.tasks.passes.batches import DOCUMENTS

WORD = re.compile(r"\w+")


class Overlap(Metric):
    """``overlap.<text>``: share of a text's word n-grams that also occur in ``against``.

    Words are lower-cased runs of letters and digits, and an n-gram does not cross documents.
    Contamination checks usually take 13 words (GPT-3, arXiv 2005.14165, appendix C). No model is
    run; the figure belongs to the candidate, which was finetuned on ``against``.
    """

    name: ClassVar[str] = "overlap"
    presentation: ClassVar[Mapping[str, Presentation]] = {
        "overlap": Presentation(
            label="n-gram overlap", part="overlap", help="share of n-grams in the finetuning text"
        )
    }

    texts: Annotated[tuple[str, ...], Field(min_length=1)]
    against: str
    n: Annotated[int, Field(gt=0)] = 13

    def names(self) -> tuple[str, ...]:
        return tuple(f"overlap.{text}" for text in self.texts)

    def needed_texts(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.texts, self.against)))

    def measure(self, arms: Arms) -> Iterator[Figure]:
        grams = {text: list(_grams(arms.texts.folders[text], self.n)) for text in self.texts}
        # memory holds the n-grams of the evaluation texts; the larger finetuning text is streamed
        evaluated = set().union(*grams.values())
        shared = evaluated.intersection(_grams(arms.texts.folders[self.against], self.n))
        for text, occurrences in grams.items():
            count = sum(gram in shared for gram in occurrences)
            yield measured(
                f"overlap.{text}",
                "candidate",
                count / len(occurrences) if occurrences else float("nan"),
                unit="share",
                higher_is_better=False,
                count=len(occurrences),
                detail=f"{count:,} of {len(occurrences):,} {self.n}-grams of words "
                f"also occur in {self.against!r}",
                not_finite=f"no document has {self.n} words",
            )


def _grams(folder: Path, n: int) -> Iterator[str]:
    with (folder / DOCUMENTS).open(encoding="utf-8") as file:
        for line in file:
            document = json.loads(line)
            parts = [document["text"]] if "text" in document else _contents(document["messages"])
            words = WORD.findall(" ".join(parts).lower())
            for start in range(len(words) - n + 1):
                yield " ".join(words[start : start + n])


def _contents(messages: list[dict]) -> list[str]:
    return [message["content"] for message in messages]
