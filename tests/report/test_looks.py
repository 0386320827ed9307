"""Colours and letters of strategies: one for each, and told apart by every reader."""

import re
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from report.example_bundle import plan

from layerwright.tasks.components import discover
from layerwright.tasks.contracts.plan import PlanItem
from layerwright.tasks.report import looks as looks_module
from layerwright.tasks.report.looks import KNOWN, looks, looks_of
from layerwright.tasks.strategies.base import Strategy

CSS = (Path(looks_module.__file__).parent / "page.css").read_text()
LIGHT, _, REST = CSS.partition("@media (prefers-color-scheme: dark)")
THEMES = {"light": LIGHT, "dark": REST.partition("* { box-sizing")[0]}
# linear RGB as a reader without one kind of cone sees it: Machado, Oliveira and Fernandes 2009
READERS = {
    "all cones": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
         [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
         [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
         [0.004733, 0.691367, 0.303900]]
    ),
}  # fmt: skip
# linear RGB -> OKLab (Ottosson 2020), in which equal distances look about equally large
TO_CONES = np.array(
    [[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566],
     [0.0883024619, 0.2817188376, 0.6299787005]]
)  # fmt: skip
TO_LAB = np.array(
    [[0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099],
     [0.0259040371, 0.7827717662, -0.8086757660]]
)  # fmt: skip
APART = 0.12  # black and white are 1 apart


def colours(theme: str) -> dict[str, np.ndarray]:
    """The theme's colours in linear RGB, by variable."""

    def linear(code: str) -> np.ndarray:
        shares = np.array([int(code[i : i + 2], 16) for i in (0, 2, 4)]) / 255
        return np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)

    found = re.findall(r"--([\w-]+): #([0-9a-f]{6});", THEMES[theme])
    return {name: linear(code) for name, code in found}


def contrast(a: np.ndarray, b: np.ndarray) -> float:
    """WCAG 2.2 contrast ratio."""
    light, dark = sorted((float(c @ [0.2126, 0.7152, 0.0722]) for c in (a, b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_every_strategy_of_the_registry_has_a_look_of_its_own() -> None:
    found = looks_of(discover(Strategy))
    assert set(KNOWN) <= set(found)
    for part in ("letter", "colour"):
        assert len({getattr(look, part) for look in found.values()}) == len(found)


def test_a_look_does_not_depend_on_its_neighbours() -> None:
    assert looks_of(["linear"])["linear"] == looks_of(["local", "linear", "keep"])["linear"]
    both = looks(plan(), plan())
    assert both["streaming"].layers == 2 * looks(plan())["streaming"].layers
    items = (PlanItem(start=0, stop=30, strategy="streaming"),)
    alone = looks(plan().model_copy(update={"items": items}))
    assert alone["streaming"].colour == looks(plan())["streaming"].colour


@pytest.mark.parametrize("theme", THEMES)
def test_colours_are_told_apart_by_every_reader(theme: str) -> None:
    found = colours(theme)
    for reader, seen_as in READERS.items():
        lab = {
            name: np.cbrt(TO_CONES @ np.clip(seen_as @ found[f"s{number}"], 0, 1)) @ TO_LAB.T
            for name, (number, _) in KNOWN.items()
        }
        for a, b in combinations(lab, 2):
            distance = np.linalg.norm(lab[a] - lab[b])
            assert distance > APART, f"{reader}: {a} and {b}, {distance:.3f}"


@pytest.mark.parametrize("theme", THEMES)
def test_letters_are_read_and_lines_are_seen(theme: str) -> None:
    found = colours(theme)
    for number, letter in KNOWN.values():
        assert contrast(found[f"s{number}"], found[f"s{number}t"]) >= 4.5, letter
        if number:  # what is kept is drawn as the base in charts
            assert contrast(found[f"s{number}"], found["card"]) >= 3, letter
