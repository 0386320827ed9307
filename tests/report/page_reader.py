"""Reads a page as a browser would, strictly."""

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from itertools import pairwise

from facts import missing

VOID = {"meta", "br", "hr", "img", "link", "input"}
BLOCKS = {"h1", "h2", "h3", "p", "li", "dd", "tr", "table", "figure"}


@dataclass
class Passage:
    """What one block says: a paragraph, a row of a table, an item of a list."""

    tag: str
    section: str  # the id of the section that it stands in
    words: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


class Page(HTMLParser):
    """Reads a page, and fails where a tag is not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.passages: list[Passage] = []
        self.within: list[tuple[Passage, int]] = []  # the open ones, and how deep each began
        self.section = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.elements.append((tag, dict(attrs)))
        assert len(dict(attrs)) == len(attrs), f"twice the same attribute: {attrs}"
        if tag not in VOID:
            self.open.append(tag)
        if tag == "section":
            self.section = dict(attrs).get("id") or "verdict"  # the one that is named by its title
        elif tag in BLOCKS:
            self.passages.append(Passage(tag, self.section))
            self.within.append((self.passages[-1], len(self.open)))

    def handle_startendtag(self, tag: str, attrs: list) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open
        if self.within and self.within[-1][1] == len(self.open):
            self.within.pop()
        assert self.open.pop() == tag
        if tag == "section":
            self.section = ""

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)
            for passage, _ in self.within:
                passage.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def says(self, *facts: object, section: str = "") -> bool:
        """Whether one passage, of that section if one is named, has all these facts."""
        return any(
            not missing(passage.text, *facts)
            for passage in self.passages
            if section in ("", passage.section) and passage.tag not in ("table", "figure")
        )

    def has(self, tag: str, section: str) -> bool:
        """Whether the section has a block of that kind."""
        return any((p.tag, p.section) == (tag, section) for p in self.passages)

    def draws(self, title: str) -> bool:
        """Whether a chart has that title."""
        return any((svg.get("aria-label") or "").startswith(title) for svg in self.all("svg"))


def check_form(page: Page) -> None:
    """Well formed and accessible: scopes, chart names, headings in order, anchors that exist."""
    assert page.all("html")[0]["lang"] == "en"
    assert page.all("th")
    assert all(th.get("scope") in ("col", "row", "rowgroup") for th in page.all("th"))
    charts = [svg for svg in page.all("svg") if svg.get("aria-hidden") != "true"]
    assert all(svg["role"] == "img" and svg["aria-label"] for svg in charts)
    assert len(page.all("h1")) == 1
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert all(after - before <= 1 for before, after in pairwise(levels))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {a["href"].removeprefix("#") for a in page.all("a")} <= set(ids)


def check_self_contained(text: str) -> None:
    """No script, no address that a browser would fetch, both colour schemes, not too large."""
    page = Page(text)
    tags = {tag for tag, _ in page.elements}
    assert tags.isdisjoint({"script", "link", "img", "iframe", "object", "embed", "base", "use"})
    for _, attributes in page.elements:
        assert not {"src", "srcset", "data", "xlink:href", "action"} & set(attributes)
        assert (attributes.get("href") or "#").startswith("#")
        assert not [name for name in attributes if name.startswith("on")]
    styles = " ".join(re.findall(r"<style>(.*?)</style>", text, re.S))
    styles += " ".join(a.get("style") or "" for _, a in page.elements)
    assert "--candidate" in styles
    assert not re.search(r"url\(|@import|https?:|//\w", styles)
    assert len(text.encode()) < 600_000
    assert "prefers-color-scheme: dark" in styles
