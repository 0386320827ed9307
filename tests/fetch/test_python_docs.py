"""python-docs: sections of the standard library's topics that share no text."""

import hashlib
import re
from collections.abc import Callable

import pytest

from layerwright.tasks.fetch.sources import text_source
from layerwright.tasks.fetch.sources.python_docs import RUN_WORDS, SECTION_CHARACTERS, sections
from layerwright.tasks.fetch.text import position
from layerwright.tasks.recipe.data import TextSource

WORDS = {
    "letters and digits": lambda text: re.findall(r"\w+", text.lower()),
    "white space": str.split,
}


def runs(texts: list[str], words: Callable[[str], list[str]]) -> set[tuple[str, ...]]:
    return {
        tuple(found[i : i + RUN_WORDS])
        for found in map(words, texts)
        for i in range(len(found) - RUN_WORDS + 1)
    }


def prose(seed: int, count: int) -> str:
    return " ".join(f"w{seed}x{i}" for i in range(count))


@pytest.mark.parametrize("words", WORDS.values(), ids=WORDS)
def test_the_real_topics_share_no_run_across_any_split(words: Callable) -> None:
    source = text_source(TextSource(source="python-docs"), None)
    texts = [data.decode() for data in source.files.values()]
    assert sum(map(len, texts)) > 300_000
    for low in (0.0, 0.3, 0.6):
        inside = [
            low <= position(hashlib.sha256(t.encode()).hexdigest()) < low + 0.3 for t in texts
        ]
        one = runs([t for t, yes in zip(texts, inside, strict=True) if yes], words)
        other = runs([t for t, yes in zip(texts, inside, strict=True) if not yes], words)
        assert len(one) > 5_000
        assert len(other) > 15_000
        assert one & other == set()


def test_an_excerpt_of_a_longer_text_is_left_out() -> None:
    shared = prose(0, 60)
    whole = "\n\n".join([prose(1, 60), shared, prose(2, 60)])
    part = "\n\n".join([shared, prose(3, 60)])
    assert sections({"part": part, "whole": whole}) == {"whole": [whole], "part": [prose(3, 60)]}
    assert sections({"excerpt": shared, "whole": whole}) == {"whole": [whole]}


def test_a_run_across_two_paragraphs_counts() -> None:
    first, second = prose(0, 30), prose(1, 30)
    whole = "\n\n".join([f"{prose(5, 40)} {first} {second}", prose(2, 60)])
    tail, head = " ".join(first.split()[-7:]), " ".join(second.split()[:7])
    part = "\n\n".join([f"{prose(3, 30)} {tail}", f"{head} {prose(4, 30)}"])
    kept = sections({"whole": whole, "part": part})["part"]
    words = WORDS["white space"]
    assert runs(kept, words) & runs([whole], words) == set()
    assert prose(3, 30) in kept[0]


def test_long_texts_are_cut_at_paragraphs() -> None:
    paragraphs = [prose(i, 60) for i in range(40)]
    cut = sections({"long": "\n\n".join(paragraphs)})["long"]
    assert "\n\n".join(cut) == "\n\n".join(paragraphs)
    assert all(len(text) < SECTION_CHARACTERS + len(paragraphs[0]) + 2 for text in cut)
    assert len(cut) > 3


def test_globs_choose_topics() -> None:
    source = text_source(TextSource(source="python-docs", files=("comparisons*",)), None)
    assert source.size_bytes() == 0
    names = source.choose(source.files)
    assert names
    assert all(name.startswith("comparisons") for name in names)
