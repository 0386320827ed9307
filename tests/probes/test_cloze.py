"""Passages that end with a word said before: where the word stands, and what is refused."""

from itertools import pairwise

import pytest
from facts import says
from tiny_checkpoint import byte_tokenizer

from layerwright.tasks.errors import InputError
from layerwright.tasks.probes.cloze import cloze_passages

NAMES = ["harbour", "lantern", "orchard", "meadow", "captain", "thunder"]
# each name comes back after 5 other sentences, some 200 bytes later
TEXT = " ".join(f"On day {i} she saw the {NAMES[i % 6]} again." for i in range(40))


def test_the_last_word_was_said_before_and_not_within_reach() -> None:
    passages = cloze_passages([TEXT], byte_tokenizer(), 3, 300, keep_out_tokens=64)
    assert len(passages) == 3
    read = [bytes(byte_tokenizer().decode(p.ids), "utf-8") for p in passages]
    for passage, text in zip(passages, read, strict=True):
        assert len(passage.ids) == 300
        key = text[passage.key_start :].strip().decode()
        assert key == passage.key in NAMES
        said = text.rindex(key.encode(), 0, passage.key_start) + len(key.encode())
        assert passage.key_start - said >= 64  # and nowhere nearer


def test_passages_do_not_overlap() -> None:
    passages = cloze_passages([TEXT, TEXT], byte_tokenizer(), 4, 300, keep_out_tokens=64)
    texts = [byte_tokenizer().decode(p.ids) for p in passages]
    assert all(text in TEXT for text in texts)
    places = [TEXT.index(text) for text in texts[:3]]
    assert all(later - earlier >= 300 for earlier, later in pairwise(places))


def test_a_word_that_only_the_window_has_said_is_no_cloze() -> None:
    near = "The harbour was near the harbour. " * 20
    with pytest.raises(InputError, match=says("0 passages", "100 tokens")) as raised:
        cloze_passages([near], byte_tokenizer(), 1, 100, keep_out_tokens=64, what="near")
    assert "'near'" in raised.value.message
