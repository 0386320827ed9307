"""Measures of how well a text matches its references."""

import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

# in scripts without spaces between words, each character is a word
WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+")


def exact(text: str, references: Sequence[str]) -> bool:
    return _plain(text) in map(_plain, references)


def contains(text: str, references: Sequence[str]) -> bool:
    return any(_plain(reference) in _plain(text) for reference in references)


def rouge_l(text: str, references: Sequence[str]) -> float:
    """F1 of the longest common subsequence of words, for the best reference; 1 for equal texts."""
    if exact(text, references):
        return 1.0  # also if neither text has a word
    return _scorer().score_multi(references, text)["rougeL"].fmeasure


Match = Callable[[str, Sequence[str]], float | bool]
MATCHES: dict[str, Match] = {"rouge_l": rouge_l, "exact": exact, "contains": contains}


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()


class _AnyScript:
    """Tokenizer for words of any script; rouge-score's own knows only a-z and digits."""

    def tokenize(self, text: str) -> list[str]:
        return WORD.findall(text.casefold())


@cache
def _scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer  # a late import, because it imports nltk

    return RougeScorer(["rougeL"], tokenizer=_AnyScript())
