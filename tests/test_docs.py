"""The pages name modules and files that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
TABLE = re.compile(r"^### (\S+)/\n\n(?:[^|#].*\n\n)?\| module .*\n.*\n((?:\|.*\n?)*)", re.MULTILINE)


def test_the_architecture_page_lists_the_modules_of_each_room() -> None:
    """A room in which each file is a plug-in has no table: a new plug-in is one file."""
    rooms = TABLE.findall((ROOT / "docs" / "architecture.md").read_text())
    assert len(rooms) > 30
    for folder, rows in rooms:
        named = set(re.findall(r"^\| `(\w+)` \|", rows, re.MULTILINE))
        there = {path.stem for path in (ROOT / folder).glob("*.py")} - {"__init__"}
        if folder == "tasks/strategies":  # plug-ins beside their base
            assert {"base", "specs"} <= named <= there
        else:
            assert named == there, folder


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []
