"""Every format gives the same documents."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset
from facts import says

from layerwright.tasks.errors import InputError
from layerwright.tasks.fetch.documents import characters, digest, read_documents, to_document

ROWS = [{"id": 1, "body": "first\nline"}, {"id": 2, "body": "zweite Zeile: ä € 🙂"}]
TEXTS = [{"text": row["body"]} for row in ROWS]


def read(path: Path, field: str = "text") -> list[dict]:
    return list(read_documents(path, field))


def write_json(path: Path) -> None:
    path.write_text(json.dumps(ROWS), encoding="utf-8")


def write_lines(path: Path) -> None:
    path.write_text("\n".join(map(json.dumps, ROWS)) + "\n\n", encoding="utf-8")


def write_stream(path: Path) -> None:
    table = pa.Table.from_pylist(ROWS)
    with pa.ipc.new_stream(str(path), table.schema) as out:
        out.write_table(table, max_chunksize=1)


def write_file(path: Path) -> None:
    table = pa.Table.from_pylist(ROWS)
    with pa.ipc.new_file(str(path), table.schema) as out:
        out.write_table(table)


def write_parquet(path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(ROWS), path)


@pytest.mark.parametrize(
    ("name", "write"),
    [("a.json", write_json), ("a.jsonl", write_lines), ("lines.json", write_lines),
     ("stream.arrow", write_stream), ("file.arrow", write_file), ("a.parquet", write_parquet)],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_rows_of_every_format(tmp_path: Path, name: str, write) -> None:
    write(tmp_path / name)
    assert read(tmp_path / name, "body") == TEXTS
    with pytest.raises(InputError, match=says("'text'", "id, body")):
        read(tmp_path / name)


def test_what_hugging_face_datasets_saves(tmp_path: Path) -> None:
    Dataset.from_list(ROWS).save_to_disk(tmp_path / "set")
    (path,) = (tmp_path / "set").glob("*.arrow")
    assert read(path, "body") == TEXTS


def test_a_text_file_is_one_document(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("\ufefföne\r\n\r\n two\n".encode())
    assert read(tmp_path / "a.txt") == [{"text": "öne\n\n two\n"}]


def test_chat_stays_chat() -> None:
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]
    row = {"messages": [m | {"weight": 1} for m in messages], "text": "rendered"}
    assert to_document(row, "text", "x") == {"messages": messages}
    assert to_document({"talk": messages}, "talk", "x") == {"messages": messages}
    with pytest.raises(InputError, match=says("role", "content")):
        to_document({"messages": [{"role": "user"}]}, "text", "f:3")


def test_instructions_become_question_and_answer() -> None:
    row = {"instruction": "Add.", "input": "1 2", "output": "3", "category": "sums"}
    assert to_document(row, "text", "x") == {
        "messages": [
            {"role": "user", "content": "Add.\n\n1 2"},
            {"role": "assistant", "content": "3"},
        ]
    }
    asked = to_document(row | {"input": ""}, "text", "x")["messages"][0]["content"]
    assert asked == "Add."
    assert to_document(row, "category", "x") == {"text": "sums"}


@pytest.mark.parametrize("row", [3, {"n": 1}, {"text": None}, {"text": ["a"]}])
def test_a_row_without_text_is_told_with_its_place(row: object) -> None:
    with pytest.raises(InputError) as error:
        to_document(row, "text", "a.jsonl:7")
    assert error.value.where == "a.jsonl:7"


def test_a_broken_file_is_told(tmp_path: Path) -> None:
    for name, data in {
        "a.jsonl": b'{"text": "a"}\n{"text": ',
        "b.json": b"[1,",
        "c.arrow": b"no arrow",
        "d.parquet": b"no parquet",
        "e.txt": b"\xff\xfe\x00",
    }.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(InputError, match=name):
            read(tmp_path / name)
    with pytest.raises(InputError, match="line 2"):
        read(tmp_path / "a.jsonl")


def test_an_unknown_format_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\.csv files"):
        read(tmp_path / "a.csv")


def test_half_a_surrogate_pair_does_not_reach_the_store() -> None:
    assert to_document(json.loads('{"text": "a\\ud83d b"}'), "text", "x") == {"text": "a? b"}


def test_digest_is_of_what_is_said() -> None:
    assert digest({"text": "a  b\n"}) == digest({"text": "a b"}) != digest({"text": "ab"})
    one = {"messages": [{"role": "user", "content": "a"}]}
    other = {"messages": [{"role": "assistant", "content": "a"}]}
    assert digest(one) != digest(other)


def test_characters_of_blank_documents_are_none() -> None:
    assert characters({"text": " \n"}) == 0
    assert characters({"messages": [{"role": "user", "content": ""}]}) == 0
    assert characters({"messages": [{"role": "user", "content": "ab"}]}) == 2
