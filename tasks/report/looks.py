"""The colour, letter and description of each strategy on the pages.

Readers with protanopia, deuteranopia or tritanopia can tell the colours apart, in the light and in
the dark theme (tests/report/test_looks.py simulates it). A letter or name always accompanies them.
"""

import ast
from collections import Counter
from collections.abc import Iterable
from functools import cache
from importlib.util import find_spec
from itertools import cycle
from pathlib import Path
from typing import NamedTuple

from layerwright.tasks.contracts.plan import ConversionPlan

# number of the colour in page.css, and letter
KNOWN = {
    "keep": (0, "K"),
    "streaming": (1, "S"),
    "prefill_selection": (2, "P"),
    "local": (3, "L"),
    "gated_recurrence": (4, "G"),
    "drop_attention": (5, "D"),
    "linear": (6, "Li"),
    "remove": (7, "R"),
}
SPARE = range(8, 12)  # colours of other strategies, in the order of their names


class Look(NamedTuple):
    """The look of one strategy. ``layers``: how many layers use it."""

    strategy: str
    letter: str
    colour: str
    layers: int

    @property
    def meaning(self) -> str:
        return described(self.strategy)


@cache
def described(strategy: str) -> str:
    """The first line of a strategy's docstring; empty if it has none.

    It is read from the source, because importing a strategy imports torch.
    """
    spec = find_spec(f"layerwright.tasks.strategies.{strategy}")
    if spec is None or spec.origin is None:
        return ""
    body = ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body
    classes = [node for node in body if isinstance(node, ast.ClassDef)]
    text = ast.get_docstring(classes[0]) if classes else ""
    return (text or "").split("\n")[0].replace("`", "")


def looks(*plans: ConversionPlan) -> dict[str, Look]:
    """The look of each strategy in the plans, with its number of layers over all of them."""
    return looks_of(Counter(s for plan in plans for s in plan.summary().values()))


def looks_of(strategies: Iterable[str]) -> dict[str, Look]:
    """The look of each strategy; no two have the same letter."""
    counts = Counter(strategies) if not isinstance(strategies, Counter) else strategies
    names = sorted(counts, key=lambda name: (KNOWN.get(name, (99,))[0], name))
    letters = {name: KNOWN[name][1] for name in names if name in KNOWN}
    for name in names:
        if name not in letters:
            choices = [name[:1].upper(), name[:2].capitalize(), name[:3].capitalize(), name]
            letters[name] = next(c for c in choices if c not in letters.values())
    spare = cycle(SPARE)
    colours = {name: KNOWN[name][0] if name in KNOWN else next(spare) for name in names}
    return {name: Look(name, letters[name], f"s{colours[name]}", counts[name]) for name in names}
