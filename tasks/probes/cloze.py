"""Cloze passages: real text whose last word occurs earlier, outside the sliding window."""

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
    """The first ``count`` passages; none overlap.

    LAMBADA (arXiv 1606.06031) asks for the last word of a passage that people can guess only from
    the whole passage. Here the last word has five letters or more and occurs earlier in the
    passage, each time at least ``keep_out_tokens`` before its end, so a model that sees only its
    window must guess.

    Args:
        texts: the documents to search.
        keep_out_tokens: sinks + window.
        what: the text's name, for messages.

    Returns:
        Passages of exactly ``passage_tokens`` tokens. The key is the last word, the needle is its
        closest earlier occurrence.

    Raises:
        InputError: the texts have fewer passages of this kind.
    """
    passages: list[RecallPrompt] = []
    for text in texts:
        for passage in _passages_of(text, tokenizer, passage_tokens, keep_out_tokens):
            passages.append(passage)
            if len(passages) == count:
                return passages
    raise InputError(
        f"the text {what!r} has {len(passages)} passages of {passage_tokens} tokens whose last "
        f"word occurs {keep_out_tokens} tokens or more earlier",
        expected=f"{count}",
        remedy="add text, or ask for fewer or longer passages",
    )


def _passages_of(
    text: str, tokenizer: PreTrainedTokenizerBase, passage_tokens: int, keep_out_tokens: int
) -> Iterator[RecallPrompt]:
    coded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    ids, offsets = coded.input_ids, coded.offset_mapping
    begins, ends = [begin for begin, _ in offsets], [end for _, end in offsets]
    next_stop = passage_tokens  # earliest end of the next passage
    last: dict[str, tuple[int, int]] = {}  # token range of each word's latest occurrence
    for word in WORD.finditer(text):
        # a token may include the space before the word
        start = bisect_left(ends, word.start() + 1)
        stop = bisect_left(begins, word.end())
        previous = last.get(word.group().lower())
        last[word.group().lower()] = start, stop
        if (
            stop < next_stop
            or previous is None
            or not _is_exact_range(text, offsets, start, stop, word)
        ):
            continue
        first = stop - passage_tokens
        if previous[0] < first or start - previous[1] < keep_out_tokens:
            continue
        yield RecallPrompt(
            ids=torch.tensor(ids[first:stop]),
            key_start=start - first,
            key_stop=passage_tokens,
            needle_start=previous[0] - first,
            needle_stop=previous[1] - first,
            key=word.group(),
        )
        next_stop = stop + passage_tokens


def _is_exact_range(
    text: str, offsets: list[tuple[int, int]], start: int, stop: int, word: re.Match[str]
) -> bool:
    """Whether the tokens from start to stop contain the word and only space besides."""
    return text[offsets[start][0] : offsets[stop - 1][1]].strip() == word.group()
