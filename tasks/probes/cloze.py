"""Passages of real text whose last word was said before, out of the window's reach."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator

import torch
from transformers import PreTrainedTokenizerBase

from layerwright.tasks.errors import InputError
from layerwright.tasks.probes.recall import RecallPrompt

WORD = re.compile(r"[^\W\d_]{5,}")


def cloze_passages(
    texts: Iterable[str],
    tokenizer: PreTrainedTokenizerBase,
    count: int,
    passage_tokens: int,
    *,
    keep_out_tokens: int,
    what: str = "text",
) -> list[RecallPrompt]:
    """The first ``count`` passages, none overlapping another.

    LAMBADA (arXiv 1606.06031) asks for a passage's last word, which people guess only from its
    whole; here the word, of five letters or more, stands in the passage already, and every time at
    least ``keep_out_tokens`` before its end: a model that sees its window alone has to guess.

    Returns:
        Passages of exactly ``passage_tokens`` tokens; the key is the last word, the needle the
        place nearest before it where it stands.

    Raises:
        InputError: the texts have fewer such passages.
    """
    found: list[RecallPrompt] = []
    for text in texts:
        for passage in _of_text(text, tokenizer, passage_tokens, keep_out_tokens):
            found.append(passage)
            if len(found) == count:
                return found
    raise InputError(
        f"the text {what!r} has {len(found)} passages of {passage_tokens} tokens that end with a "
        f"word said before, {keep_out_tokens} tokens or more away",
        expected=f"{count}",
        remedy="give it more text, or ask for fewer or longer passages",
    )


def _of_text(
    text: str, tokenizer: PreTrainedTokenizerBase, passage_tokens: int, keep_out_tokens: int
) -> Iterator[RecallPrompt]:
    coded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    ids, offsets = coded.input_ids, coded.offset_mapping
    begins, ends = [begin for begin, _ in offsets], [end for _, end in offsets]
    earliest = passage_tokens  # the end of the next passage
    last: dict[str, tuple[int, int]] = {}  # where each word stood last, in tokens
    for word in WORD.finditer(text):
        # a token may hold the space before the word
        start = bisect_left(ends, word.start() + 1)
        stop = bisect_left(begins, word.end())
        before = last.get(word.group().lower())
        last[word.group().lower()] = start, stop
        if stop < earliest or before is None or not _alone(text, offsets, start, stop, word):
            continue
        first = stop - passage_tokens
        if before[0] < first or start - before[1] < keep_out_tokens:
            continue
        yield RecallPrompt(
            ids=torch.tensor(ids[first:stop]),
            key_start=start - first,
            key_stop=passage_tokens,
            needle_start=before[0] - first,
            needle_stop=before[1] - first,
            key=word.group(),
        )
        earliest = stop + passage_tokens


def _alone(
    text: str, offsets: list[tuple[int, int]], start: int, stop: int, word: re.Match
) -> bool:
    """Whether the tokens from start to stop hold the word and nothing else but space."""
    return text[offsets[start][0] : offsets[stop - 1][1]].strip() == word.group()
