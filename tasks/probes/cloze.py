"""Cloze passages: real text whose last word occurs earlier, outside the sliding window."""

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from itertools import chain, islice

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
        passage_tokens: exact length of a passage, whose last word is the key.
        keep_out_tokens: sinks + window.
        what: the text's name, for messages.

    Raises:
        InputError: the texts have fewer passages of this kind.
    """
    found = (_passages_of(text, tokenizer, passage_tokens, keep_out_tokens) for text in texts)
    passages = list(islice(chain.from_iterable(found), count))
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
        if previous is None or stop < next_stop:
            continue
        # the word's tokens have no other text but space
        is_exact = text[offsets[start][0] : offsets[stop - 1][1]].strip() == word.group()
        first = stop - passage_tokens
        if is_exact and previous[0] >= first and start - previous[1] >= keep_out_tokens:
            yield RecallPrompt(torch.tensor(ids[first:stop]), start - first, word.group())
            next_stop = stop + passage_tokens
