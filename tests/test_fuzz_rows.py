"""Broken rows of texts and tasks: told, with the row, and never a traceback."""

from __future__ import annotations

import json
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mutations import FUZZ, holds, mutated
from tiny_questions import rows

from layerwright.tasks.components import build, discover
from layerwright.tasks.context import Context
from layerwright.tasks.contracts.base import Spec
from layerwright.tasks.evaluate.base import Metric
from layerwright.tasks.evaluate.suite import check_items
from layerwright.tasks.evaluate.zero_shot import ZeroShot
from layerwright.tasks.fetch.text import fetch_text
from layerwright.tasks.recipe.data import TextSource
from layerwright.tasks.store.local import LocalStore

TASKS = sorted(n for n, kind in discover(Metric).items() if issubclass(kind, ZeroShot))
CHAT = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
ASKED = {
    "gsm8k": [{"question": f"What is {n}?", "answer": f"It is {n}. #### {n}"} for n in range(7)],
    "prompts": [{"prompt": "Say b.", "references": ["b"]}, {"prompt": "a", "references": ["c"]}],
}
TEXTS = [{"text": "a"}, CHAT, {"instruction": "a", "input": "", "output": "b"}, "plain"]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory):
    """A new folder for each example."""
    root = tmp_path_factory.mktemp("rows")
    return (root / str(number) for number in count())


def lines(changed: object) -> bytes:
    rows = changed if isinstance(changed, list) else [changed]
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def fetched(folder: Path, data: bytes, name: str = "rows.jsonl", **options: object):
    folder.mkdir()
    (folder / name).write_bytes(data)
    source = TextSource(source=str(folder / name), **options)
    store = LocalStore(folder / "store")
    return fetch_text(source, Context(store, folder / "work")), store


@FUZZ
@given(mutated(TEXTS), st.sampled_from(["rows.jsonl", "rows.json"]))
def test_texts(places, document: object, name: str) -> None:
    holds(lambda: fetched(next(places), lines(document), name), 2)


@FUZZ
@given(
    st.binary(max_size=60) | st.sampled_from([b"[" * 10**5, b'{"text": ' * 10**5, b"\xff\xfe"]),
    st.sampled_from(["rows.jsonl", "rows.json", "rows.txt", "rows.arrow", "rows.parquet"]),
    st.sampled_from(["text", "items"]),
)
def test_any_bytes(places, data: bytes, name: str, form: str) -> None:
    holds(lambda: fetched(next(places), data, name, form=form), 2)


def asked(folder: Path, metric: str, data: bytes) -> None:
    """What is read of a task's rows before any model is loaded."""
    text, store = fetched(folder, data, form="items")
    options = {"texts": ["t"]} if metric in TASKS else {"text": "t"}
    check_items([build(Metric, Spec(name=metric, **options))], {"t": text}, store)


@pytest.mark.parametrize("metric", [*ASKED, *TASKS])
def test_good_rows_are_read(places, metric: str) -> None:
    asked(next(places), metric, lines(ASKED.get(metric) or rows(metric, 3)))


@FUZZ
@given(st.sampled_from([*ASKED, *TASKS]), st.data())
def test_task_rows(places, metric: str, data: st.DataObject) -> None:
    changed = data.draw(mutated(ASKED.get(metric) or rows(metric, 3)))
    holds(lambda: asked(next(places), metric, lines(changed)), 2)
