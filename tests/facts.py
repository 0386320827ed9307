"""Which facts a text leaves out: numbers, names and states, whatever sentence carries them."""

from __future__ import annotations

import re


def missing(text: str, *facts: object) -> list[str]:
    """The facts that do not stand in the text. ``1.5`` does not stand in ``11.5``, nor ``a`` in
    ``at``; upper and lower case are the same.
    """
    return [
        str(fact)
        for fact in facts
        if not re.search(rf"(?<![\w.,])(?<!\w-){re.escape(str(fact))}(?!\w|[.,]\d)", text, re.I)
    ]


def says(*facts: object) -> str:
    """A pattern for ``pytest.raises(match=...)``: the message has all these facts, in any order."""
    return "(?si)" + "".join(rf"(?=.*(?<!\w){re.escape(str(fact))}(?!\w))" for fact in facts)
