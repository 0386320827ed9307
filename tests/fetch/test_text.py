"""From a source to documents.jsonl."""

import json
from pathlib import Path

import pytest

from layerwright.tasks.context import Context
from layerwright.tasks.contracts.references import TextRef
from layerwright.tasks.errors import InputError
from layerwright.tasks.fetch.text import DOCUMENTS, fetch_text
from layerwright.tasks.recipe.data import TextSource
from layerwright.tasks.records import read_records
from layerwright.tasks.store.local import LocalStore


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "corpus"
    folder.mkdir()
    for start in (0, 40):
        rows = [{"text": f"document {i} says {i * i}"} for i in range(start, start + 60)]
        lines = "\n".join(map(json.dumps, [*rows, {"text": "  "}]))
        (folder / f"part{start}.jsonl").write_text(lines)
    (folder / "README.md").write_text("not a text of this set")
    return folder


class Fetching:
    """Fetches into one store, each time in a workdir of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.count = folder, 0
        self.store = LocalStore(folder / "store")

    def __call__(self, data_root: Path | None = None, **source: object) -> TextRef:
        self.count += 1
        ctx = Context(store=self.store, workdir=self.folder / f"work{self.count}")
        return fetch_text(TextSource(**source), ctx, data_root and str(data_root))

    def documents(self, ref: TextRef) -> list[dict]:
        lines = (self.store.open_tree(ref.sha256) / DOCUMENTS).read_text(encoding="utf-8")
        return [json.loads(line) for line in lines.splitlines()]


@pytest.fixture
def fetching(tmp_path: Path) -> Fetching:
    return Fetching(tmp_path)


def test_documents_in_order_without_repetitions_and_blanks(
    fetching: Fetching, corpus: Path
) -> None:
    ref = fetching(source=str(corpus))
    expected = [{"text": f"document {i} says {i * i}"} for i in range(100)]
    assert fetching.documents(ref) == expected
    assert ref.documents == 100
    assert ref.characters == sum(len(document["text"]) for document in expected)


def test_the_same_digest_each_time_and_another_for_another_text(
    fetching: Fetching, corpus: Path
) -> None:
    first = fetching(corpus.parent, source="local:corpus")
    assert fetching(corpus.parent, source="local:corpus") == first
    (corpus / "part40.jsonl").unlink()
    assert fetching(corpus.parent, source="local:corpus").sha256 != first.sha256


def test_disjoint_parts_share_nothing_and_miss_nothing(fetching: Fetching, corpus: Path) -> None:
    cuts = ((0.0, 0.25), (0.25, 0.6), (0.6, 1.0))
    refs = [fetching(source=str(corpus), part=cut) for cut in cuts]
    parts = [{document["text"] for document in fetching.documents(ref)} for ref in refs]
    assert sum(map(len, parts)) == len(set().union(*parts)) == 100
    for part, (low, high) in zip(parts, cuts, strict=True):
        assert abs(len(part) / 100 - (high - low)) < 0.15


def test_a_document_stays_in_its_part_when_others_come(fetching: Fetching, corpus: Path) -> None:
    before = fetching.documents(fetching(source=str(corpus), part=(0, 0.5)))
    (corpus / "a-new-one.jsonl").write_text('{"text": "new"}\n')
    after = fetching.documents(fetching(source=str(corpus), part=(0, 0.5)))
    assert [document for document in after if document["text"] != "new"] == before


def test_chat_and_text_side_by_side(fetching: Fetching, tmp_path: Path) -> None:
    chat = {"messages": [{"role": "user", "content": "hö"}]}
    (tmp_path / "a.jsonl").write_text(json.dumps(chat) + '\n{"text": "plain"}\n')
    assert fetching.documents(fetching(source=str(tmp_path / "a.jsonl"))) == [
        chat,
        {"text": "plain"},
    ]


def test_items_stay_as_they_are_with_file_and_line(fetching: Fetching, tmp_path: Path) -> None:
    rows = [{"question": "1 + 1?", "answer": "2", "n": [1]}, {"question": "odd \ud800", "x": None}]
    lines = [*map(json.dumps, rows), "", json.dumps(rows[0])]
    (tmp_path / "quiz.jsonl").write_text("\n".join(lines))
    ref = fetching(source=str(tmp_path / "quiz.jsonl"), form="items")
    found = list(read_records(fetching.store.open_tree(ref.sha256), "quiz"))
    assert [(record.at, record.row) for record in found] == [
        ("quiz.jsonl:1", rows[0]),
        ("quiz.jsonl:2", rows[1]),
        ("quiz.jsonl:4", rows[0]),  # asked twice, as it was given
    ]
    assert ref.documents == 3
    assert found[1].text("question") == "odd ?"
    for field, said in (("x", "no text"), ("answer", "the row has question, x")):
        with pytest.raises(InputError, match=said) as told:
            found[1].text(field)
        assert told.value.where == f"quiz.jsonl:2: {field}"


@pytest.mark.parametrize(
    ("line", "message"),
    [("[1, 2]", r"quiz\.jsonl:2: not an object"), ('{"a": 1', r"quiz\.jsonl.*line 2")],
)
def test_a_row_that_is_no_item_is_told_with_its_line(
    fetching: Fetching, tmp_path: Path, line: str, message: str
) -> None:
    (tmp_path / "quiz.jsonl").write_text('{"question": "?"}\n' + line + "\n")
    with pytest.raises(InputError, match=message):
        fetching(source=str(tmp_path / "quiz.jsonl"), form="items")


def test_where_it_came_from_is_recorded(fetching: Fetching, corpus: Path) -> None:
    ref = fetching(source=str(corpus), files=("part0*",))
    record = json.loads((fetching.store.open_tree(ref.sha256) / "source.json").read_text())
    (entry,) = record["files"]
    assert entry["path"] == "part0.jsonl"
    assert entry["bytes"] == (corpus / "part0.jsonl").stat().st_size


def test_rows_as_items_stay_whole_and_repeated(fetching: Fetching, tmp_path: Path) -> None:
    rows = [{"question": "why?", "choices": {"text": ["a", "\ud800"]}}, {"question": "how?"}]
    (tmp_path / "quiz.jsonl").write_text("\n".join(map(json.dumps, [*rows, rows[0]])))
    (tmp_path / "many.jsonl").write_text("\n".join(json.dumps({"n": i % 40}) for i in range(80)))
    ref = fetching(source=str(tmp_path / "quiz.jsonl"), form="items")
    kept = fetching.documents(ref)
    assert [row["item"] for row in kept] == [*rows, rows[0]]
    assert [row["at"] for row in kept] == [f"quiz.jsonl:{line}" for line in (1, 2, 3)]
    assert ref.documents == 3
    for part in ((0.0, 0.5), (0.5, 1.0)):  # equal rows are in the same part
        ref = fetching(source=str(tmp_path / "many.jsonl"), form="items", part=part)
        kept = fetching.documents(ref)
        assert 0 < len(kept) < 80
        assert len(kept) == 2 * len({row["item"]["n"] for row in kept})


def test_files_stay_as_they_are(fetching: Fetching, corpus: Path) -> None:
    ref = fetching(source=str(corpus), form="files", files=("*.md", "part0*"))
    folder = fetching.store.open_tree(ref.sha256)
    for name in ("README.md", "part0.jsonl"):
        assert (folder / name).read_bytes() == (corpus / name).read_bytes()
    assert ref.documents == 2


def test_a_row_without_fields_is_no_item(fetching: Fetching, tmp_path: Path) -> None:
    (tmp_path / "quiz.jsonl").write_text('{"question": "why?"}\n["a list"]\n')
    with pytest.raises(InputError, match=r"quiz\.jsonl:2: not an object"):
        fetching(source=str(tmp_path / "quiz.jsonl"), form="items")


def test_nothing_left_is_told(fetching: Fetching, corpus: Path) -> None:
    with pytest.raises(InputError, match="no text"):
        fetching(source=str(corpus), part=(0.5, 0.500001))


def test_a_format_that_was_asked_for_and_cannot_be_read_is_told(
    fetching: Fetching, corpus: Path
) -> None:
    with pytest.raises(InputError, match=r"README\.md"):
        fetching(source=str(corpus), files=("*.md",))


def test_a_killed_attempt_is_gone_on_from(fetching: Fetching, corpus: Path) -> None:
    """The same workdir, with what a killed attempt left in it."""
    first = fetching(source=str(corpus))
    half = fetching.folder / "work2" / "text"
    half.mkdir(parents=True)
    (half / DOCUMENTS).write_text('{"text": "half a docu')
    (half / "stray").write_text("x")
    assert fetching(source=str(corpus)) == first


def test_python_docs(fetching: Fetching) -> None:
    ref = fetching(source="python-docs", part=(0.3, 1.0))
    assert ref.documents > 50
    assert fetching(source="python-docs", part=(0.3, 1.0)) == ref
