"""Overlap of an evaluation text with the finetuning text."""

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from layerwright.tasks.evaluate.arms import Arms
from layerwright.tasks.evaluate.base import Count, Figure, TextMetric, measured, shown
from layerwright.tasks.passes.batches import documents

WORD = re.compile(r"\w+")


class Overlap(TextMetric):
    """``overlap.<text>``: share of a text's word n-grams that also occur in ``against``.

    Words are lower-cased runs of letters and digits, and an n-gram does not cross documents.
    Contamination checks usually take 13 words (GPT-3, arXiv 2005.14165, appendix C). No model is
    run; the figure belongs to the candidate, which was finetuned on ``against``.
    """

    name = "overlap"
    families = ("overlap",)
    presentation = {
        "overlap": shown("n-gram overlap", "share of n-grams in the finetuning text", "overlap")
    }

    against: str
    n: Count = 13

    def needed_texts(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.texts, self.against)))

    def measure(self, arms: Arms) -> Iterator[Figure]:
        folders = arms.texts.folders
        grams = {text: list(_grams(folders, text, self.n)) for text in self.texts}
        # memory holds the n-grams of the evaluation texts; the larger finetuning text is streamed
        evaluated = set().union(*grams.values())
        shared = evaluated.intersection(_grams(folders, self.against, self.n))
        for text, occurrences in grams.items():
            count, total = sum(gram in shared for gram in occurrences), len(occurrences)
            yield measured(
                f"overlap.{text}",
                "candidate",
                count / total if total else math.nan,
                "share",
                count=total,
                detail=f"{count:,} of {total:,} {self.n}-grams of words also occur in "
                f"{self.against!r}",
                not_finite=f"no document has {self.n} words",
            )


def _grams(folders: Mapping[str, Path], text: str, n: int) -> Iterator[str]:
    for document in documents(folders[text], text):
        messages = document.get("messages", ())
        parts = [document.get("text", ""), *(message["content"] for message in messages)]
        words = WORD.findall(" ".join(parts).lower())
        yield from (" ".join(words[start : start + n]) for start in range(len(words) - n + 1))
