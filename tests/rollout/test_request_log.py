"""Request logs that are wrong, told with file, line and field."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerwright.tasks.contracts.rollout import Request
from layerwright.tasks.errors import InputError
from layerwright.tasks.rollout.replay import read_log

GOOD = '{"id": "a", "prompt": "Once"}'


def test_a_log(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(
        GOOD + '\n{"id": "b", "prompt": "\\u2028", "reference": "", "max_new_tokens": 3}\n'
    )
    assert read_log(path) == (
        Request(id="a", prompt="Once"),
        Request(id="b", prompt="\u2028", reference="", max_new_tokens=3),
    )


@pytest.mark.parametrize(
    ("text", "where", "message"),
    [
        ("", "", "the log has no requests"),
        (GOOD + "\n\n" + GOOD, ":2", "Invalid JSON"),
        (GOOD + "\n{", ":2", "Invalid JSON"),
        (GOOD + "\n[]", ":2", "object"),
        (GOOD + '\n{"id": "b"}', ":2: prompt", "Field required"),
        (GOOD + '\n{"id": 7, "prompt": "b"}', ":2: id", "valid string"),
        ('{"id": "a", "prompt": ""}', ":1: prompt", "at least 1 character"),
        ('{"id": "a", "prompt": "b", "max_new_tokens": 0}', ":1: max_new_tokens", "greater than 0"),
        ('{"id": "a", "prompt": "b", "max_new_tokens": "4"}', ":1: max_new_tokens", "integer"),
        ('{"id": "a", "prompt": "b", "answer": "c"}', ":1: answer", "not permitted"),
        ('{"id": "a", "prompt": "\\ud800"}', ":1", "Invalid JSON"),
        (GOOD + "\n" + GOOD, ":2: id", "line 1 has the same id 'a'"),
    ],
)
def test_what_is_no_log(tmp_path: Path, text: str, where: str, message: str) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as refused:
        read_log(path)
    assert refused.value.where == f"{path}{where}"


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        read_log(tmp_path / "nowhere")
    (tmp_path / "latin").write_bytes(b'{"id": "\xe9"}')
    with pytest.raises(InputError, match="cannot be read"):
        read_log(tmp_path / "latin")


@given(st.lists(st.one_of(st.binary(), st.just(GOOD.encode())), max_size=4))
def test_no_bytes_do_more_than_be_refused(tmp_path_factory, lines: list[bytes]) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "log.jsonl"
    path.write_bytes(b"\n".join(lines))
    try:
        found = read_log(path)
    except InputError:
        return
    assert [one.id for one in found] == ["a"]


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_every_text_comes_back(tmp_path_factory, text: str) -> None:
    path = tmp_path_factory.mktemp("texts") / "log.jsonl"
    path.write_text(json.dumps({"id": text, "prompt": text}), encoding="utf-8")
    assert read_log(path) == (Request(id=text, prompt=text),)
