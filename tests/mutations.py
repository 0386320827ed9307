"""Broken input for fuzz tests: valid documents with something changed, and what must hold of it.

LAYERWRIGHT_FUZZ_EXAMPLES asks for more examples than a test run has time for, other ones each time.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from layerwright.tasks.errors import LayerwrightError

MORE = os.environ.get("LAYERWRIGHT_FUZZ_EXAMPLES")
FUZZ = settings(
    max_examples=int(MORE or 60),
    derandomize=MORE is None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
ODD_TEXTS = (
    "", " ", "\0", "../../outside",
    "/etc/passwd", "a\\..\\b", "ü\u202e\U0001d4b3\ufeff", "a" * 5000,
    "~nobody-here/x", "s3://", "file://", "hf:", "pypi:a==1", "local:", "python-docs", "gs://x",
    "[[[", "*", "null", "1e999", "0x10", "!!python/object:os.system x", "${HOME}", "{x}", "%s",
    "keep", "name", "\ud800",
)  # fmt: skip
ODD_VALUES = (
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**70), 10**4000, 10**18, 0.0, -0.0, 1e-320, 1e308,
    float("nan"), float("inf"), [], {}, [[]], [None], {"name": 1}, {"": {}}, {"name": "keep"},
    [{}] * 20,
)  # fmt: skip
odd = st.sampled_from(ODD_TEXTS) | st.sampled_from(ODD_VALUES) | st.text(max_size=8)


@st.composite
def mutated(draw: st.DrawFn, document: Any) -> Any:
    """The JSON-like document with one to four of its values changed, moved, dropped or doubled."""
    changed = {"": copy.deepcopy(document)}  # so that the whole has a place as well
    for _ in range(draw(st.integers(1, 4))):
        node, key = draw(st.sampled_from(list(_places(changed))))
        match draw(st.integers(0, 5)):
            case 0 | 1:
                node[key] = copy.deepcopy(draw(odd))  # later changes are its own
            case 2 if node is not changed:
                del node[key]
            case 3:
                other, place = draw(st.sampled_from(list(_places(changed))))
                node[key] = copy.deepcopy(other[place])
            case 4 if isinstance(node[key], dict):
                node[key][draw(st.sampled_from(ODD_TEXTS))] = copy.deepcopy(draw(odd))
            case 5 if isinstance(node[key], list):
                node[key] *= draw(st.integers(2, 3))
            case _:
                node[key] = [node[key]]
    return changed[""]


def _places(node: Any) -> Any:
    """(container, key) of every value in a document."""
    for key in list(node) if isinstance(node, dict) else range(len(node)):
        yield node, key
        if isinstance(node[key], dict | list):
            yield from _places(node[key])


def holds(call: Callable[[], object], *statuses: int) -> None:
    """It ends well, or with an error for people that has one of these exit statuses."""
    try:
        call()
    except LayerwrightError as error:
        if error.exit_status not in statuses or not str(error).strip():
            raise AssertionError(f"exit status {error.exit_status}: {error}") from error


def files_under(folder: Path) -> dict[str, bytes | None]:
    """What lies under a folder; two of them are equal when nothing was written between them."""
    found = sorted(folder.rglob("*"))
    return {str(path): path.read_bytes() if path.is_file() else None for path in found}
