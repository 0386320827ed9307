"""Overlap of an evaluation text with the text that the model was fine-tuned on."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from layerwright.tasks.evaluate.arms import Arms
from layerwright.tasks.evaluate.base import Figure, Metric, measured
from layerwright.tasks.passes.batches import DOCUMENTS

WORD = re.compile(r"\w+")


class Overlap(Metric):
    """``overlap.<text>``: share of an evaluation text's n-grams that the other text has as well.

    Words are lower-cased runs of letters and digits; an n-gram stays inside its document. Thirteen
    words are the usual length for contamination checks (GPT-3, arXiv 2005.14165, appendix C).
    No model is run; the figure is the candidate's, which was fine-tuned on ``against``.
    """

    name: ClassVar[str] = "overlap"

    texts: Annotated[tuple[str, ...], Field(min_length=1)]
    against: str
    n: Annotated[int, Field(gt=0)] = 13

    def names(self) -> tuple[str, ...]:
        return tuple(f"overlap.{text}" for text in self.texts)

    def needed_texts(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.texts, self.against)))

    def measure(self, arms: Arms) -> Iterator[Figure]:
        grams = {text: list(_grams(arms.texts.folders[text], self.n)) for text in self.texts}
        # the evaluation texts are the small side: the fine-tuning text streams past them
        wanted = set().union(*grams.values())
        seen = wanted.intersection(_grams(arms.texts.folders[self.against], self.n))
        for text, occurrences in grams.items():
            found = sum(gram in seen for gram in occurrences)
            yield measured(
                f"overlap.{text}",
                "candidate",
                found / len(occurrences) if occurrences else float("nan"),
                unit="share",
                higher_is_better=False,
                count=len(occurrences),
                detail=f"{found:,} of {len(occurrences):,} {self.n}-grams of words "
                f"are in {self.against!r} too",
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
