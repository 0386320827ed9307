"""The pages in a real browser: at a desk's and a phone's width, light and dark, and on paper."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from report.example_bundle import bundle
from report.example_survey import survey_bundle

from layerwright.tasks.report.page import render_page
from layerwright.tasks.report.survey import render_survey

pytestmark = pytest.mark.stack

PAGES: dict[str, Callable[[], str]] = {
    "accepted": lambda: render_page(bundle()),
    "rejected": lambda: render_page(bundle(accepted=False)),
    "layers-80": lambda: render_page(bundle(layers=80)),
    "survey": lambda: render_survey(survey_bundle()),
}
WIDTHS = {"desk": 1280, "phone": 390}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no browser is installed: install the package chromium")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        # a container has no user namespaces for its sandbox; the page is our own
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
@pytest.mark.parametrize("name", PAGES)
def test_a_page(browser: Any, name: str, width: int, scheme: str, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text(PAGES[name](), encoding="utf-8")
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    assert said == []
    assert asked == [path.as_uri()], "nothing comes from anywhere else"
    wide = page.evaluate("document.documentElement.scrollWidth")
    assert wide <= width, "the page itself does not scroll sideways"
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    light = sum(int(part) for part in background[4:-1].split(",")[:3]) > 3 * 128
    assert light == (scheme == "light")
    page.close()


@pytest.mark.parametrize("name", PAGES)
def test_a_page_on_paper(browser: Any, name: str, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text(PAGES[name](), encoding="utf-8")
    page = browser.new_page(color_scheme="dark")
    page.goto(path.as_uri())
    printed = page.pdf(format="A4")
    assert printed.startswith(b"%PDF")
    page.emulate_media(media="print")
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background in ("rgb(255, 255, 255)", "rgba(0, 0, 0, 0)"), "no ink for a dark page"
    page.close()
