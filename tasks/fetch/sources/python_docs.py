"""``python-docs``: the reference texts that every Python carries (``pydoc_data.topics``).

The topics repeat each other at length (``specialnames`` contains ``customization`` and a dozen
more), which would leak training text into evaluation text. So they are cut into sections, and no
two sections share any run of 13 words, the length at which GPT-3 (arXiv 2005.14165, appendix C)
and most work since call two texts overlapping: whatever parts a recipe takes, none knows another.
"""

from __future__ import annotations

import hashlib
import json
import re
from functools import cached_property
from pathlib import Path
from pydoc_data.topics import topics

from layerwright.tasks.fetch.sources.source import Source, Tick

RUN_WORDS = 13
SECTION_CHARACTERS = 3000  # a section ends at the next paragraph, or at a heading past the half
LEAST_CHARACTERS = 200  # what is left of a section below this is no text of its own

# what a word is, differs: of letters and digits, or between white space (signs of code as well)
_WORDS = (re.compile(r"\w+"), re.compile(r"\S+"))
_PARAGRAPHS = re.compile(r"\n[ \t]*\n")
_HEADING = re.compile(r"[^\n]+\n([*=\-^~\"])\1{2,}\s*")


class PythonDocsSource(Source):
    """One ``topic.NN.txt`` a section; globs choose among them."""

    form = "python-docs"
    purposes = ("text",)

    @classmethod
    def claims(cls, text: str) -> bool:
        return text == cls.form

    def read_form(self) -> None:
        """There is nothing to take apart."""

    def identity(self) -> str:
        """sha256 of the topics of this Python."""
        text = json.dumps(topics, sort_keys=True)
        return f"{self.form}:{hashlib.sha256(text.encode()).hexdigest()}"

    def size_bytes(self) -> int | None:
        self.choose(self.listing(Path()))
        return 0  # it is here already

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
    """Cut texts into sections of which no two share a run of RUN_WORDS words.

    The longest text comes first, so that it stays in one piece and its excerpts elsewhere go. A
    paragraph is left out when it, or its joint with the paragraph kept before it, repeats a run of
    an earlier section, or when an earlier section has the same paragraph.

    Args:
        texts: text by name.

    Returns:
        The sections of each text, in order; texts with nothing of their own are left out.
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
    return {name: found for name, found in cut.items() if found}


class _Section:
    """The section being filled, with its runs of words."""

    def __init__(self) -> None:
        self.kept: list[str] = []
        self.words: tuple[list[str], ...] = tuple([] for _ in _WORDS)
        self.runs: set[tuple[str, ...]] = set()

    def is_full(self, before: str) -> bool:
        length = sum(map(len, self.kept))
        early = length >= SECTION_CHARACTERS // 2 and _HEADING.fullmatch(before)
        return length >= SECTION_CHARACTERS or bool(early)

    def offer(self, paragraph: str, runs: set[tuple[str, ...]], paragraphs: set[str]) -> None:
        """Keep a paragraph, unless an earlier section has it or a run of it."""
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
        """Put the section's text into ``cut`` if it is long enough, and remember what it says."""
        text = "\n\n".join(self.kept)
        if len(text) >= LEAST_CHARACTERS:
            cut.append(text)
            runs |= self.runs
            paragraphs.update(" ".join(paragraph.split()) for paragraph in self.kept)
