"""``python-docs``: the reference texts that ship with Python (``pydoc_data.topics``).

The topics repeat long passages of each other, which would leak training text into evaluation text.
So this source cuts them into sections of which no two share a run of 13 words, the length by which
GPT-3 (arXiv 2005.14165, appendix C) and most later work detect overlap.
"""

import hashlib
import json
import re
from functools import cached_property
from pathlib import Path
from pydoc_data.topics import topics

from layerwright.tasks.fetch.sources.source import Source, Tick

RUN_WORDS = 13
SECTION_CHARACTERS = 3000  # a longer section ends; past half of it, a heading ends it too
LEAST_CHARACTERS = 200  # shorter sections are dropped

# two definitions of a word: letters and digits; or anything between white space, as code needs
_WORDS = (re.compile(r"\w+"), re.compile(r"\S+"))
_PARAGRAPHS = re.compile(r"\n[ \t]*\n")
_HEADING = re.compile(r"[^\n]+\n([*=\-^~\"])\1{2,}\s*")


class PythonDocsSource(Source):
    """A file ``topic.NN.txt`` for each section."""

    form = "python-docs"
    purposes = ("text",)

    @classmethod
    def claims(cls, text: str) -> bool:
        return text == cls.form

    def read_form(self) -> None:
        """This source has no parts to parse."""

    def identity(self) -> str:
        """sha256 of the topics of this Python version."""
        text = json.dumps(topics, sort_keys=True)
        return f"{self.form}:{hashlib.sha256(text.encode()).hexdigest()}"

    def size_bytes(self) -> int | None:
        self.choose(self.listing(Path()))
        return 0  # nothing is transferred

    @cached_property
    def files(self) -> dict[str, bytes]:
        return {
            f"{topic}.{number:02d}.txt": text.encode()
            for topic, texts in sections(topics).items()
            for number, text in enumerate(texts)
        }

    def listing(self, work: Path) -> dict[str, int]:
        return {name: len(data) for name, data in self.files.items()}

    def take(self, name: str, target: Path, work: Path, tick: Tick) -> None:
        tick(target.write_bytes(self.files[name]))


def sections(texts: dict[str, str]) -> dict[str, list[str]]:
    """Cut texts, by name, into sections of which no two share a run of RUN_WORDS words.

    The longest text comes first: it stays complete, and its excerpts in other texts are dropped. A
    paragraph is dropped if it repeats a run of words of an earlier section (also across the
    boundary to the paragraph kept before it), or if an earlier section has the same paragraph.
    Texts that have no section left are omitted.
    """
    runs: set[tuple[str, ...]] = set()
    paragraphs: set[str] = set()
    cut: dict[str, list[str]] = {}
    for name in sorted(texts, key=lambda name: (-len(texts[name]), name)):
        section = _Section()
        for paragraph in filter(str.strip, _PARAGRAPHS.split(texts[name])):
            paragraph = paragraph.strip("\n")
            if section.is_full(before=paragraph):
                section.close(cut.setdefault(name, []), runs, paragraphs)
                section = _Section()
            section.offer(paragraph, runs, paragraphs)
        section.close(cut.setdefault(name, []), runs, paragraphs)
    return {name: texts for name, texts in cut.items() if texts}


class _Section:
    """The section being built, with its runs of words."""

    def __init__(self) -> None:
        self.kept: list[str] = []
        self.words: tuple[list[str], ...] = tuple([] for _ in _WORDS)
        self.runs: set[tuple[str, ...]] = set()

    def is_full(self, before: str) -> bool:
        length = sum(map(len, self.kept))
        early = length >= SECTION_CHARACTERS // 2 and _HEADING.fullmatch(before)
        return length >= SECTION_CHARACTERS or bool(early)

    def offer(self, paragraph: str, runs: set[tuple[str, ...]], paragraphs: set[str]) -> None:
        """Add a paragraph, unless an earlier section has it or shares a run of words with it."""
        words = [word.findall(paragraph.lower()) for word in _WORDS]
        joints = [old[1 - RUN_WORDS :] + new for old, new in zip(self.words, words, strict=True)]
        own = {
            tuple(joint[i : i + RUN_WORDS])
            for joint in joints
            for i in range(len(joint) - RUN_WORDS + 1)
        }
        if own & runs or " ".join(paragraph.split()) in paragraphs:
            return
        self.kept.append(paragraph)
        for old, new in zip(self.words, words, strict=True):
            old += new
        self.runs |= own

    def close(self, cut: list[str], runs: set[tuple[str, ...]], paragraphs: set[str]) -> None:
        """If the section is long enough, append it to ``cut`` and record its runs of words."""
        text = "\n\n".join(self.kept)
        if len(text) >= LEAST_CHARACTERS:
            cut.append(text)
            runs |= self.runs
            paragraphs.update(" ".join(paragraph.split()) for paragraph in self.kept)
