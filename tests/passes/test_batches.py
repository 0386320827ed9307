"""Packing and cutting of text into rows."""

import json
from pathlib import Path

import pytest
import torch
from facts import says
from tiny_checkpoint import byte_tokenizer

from layerwright.tasks.contracts.references import Calibration, TextRef
from layerwright.tasks.errors import InputError
from layerwright.tasks.passes.batches import calibration_rows, rows_beside, token_rows
from layerwright.tasks.store.local import LocalStore

CHAT = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
TOKENIZER = byte_tokenizer()
EOS = TOKENIZER.eos_token_id


def text_tree(folder: Path, *documents: str | list) -> Path:
    lines = [
        json.dumps({"text": one} if isinstance(one, str) else {"messages": one})
        for one in documents
    ]
    (folder / "documents.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def test_one_document_is_exactly_its_tokens_cut_without_overlap(tmp_path: Path) -> None:
    text = "The harbour master counted seventeen boats, and one of them was his own."
    rows = token_rows(text_tree(tmp_path, text), TOKENIZER, 3, 20)
    assert rows.flatten().tolist() == TOKENIZER(text).input_ids[:60]
    assert rows.dtype == torch.int64


def test_documents_are_joined_by_eos_and_no_row_is_padded(tmp_path: Path) -> None:
    rows = token_rows(text_tree(tmp_path, "abcd", "ef", "ghijk"), TOKENIZER, 3, 4)
    ids = [*TOKENIZER("abcd").input_ids, EOS, *TOKENIZER("ef").input_ids, EOS]
    ids += TOKENIZER("ghijk").input_ids
    assert rows.tolist() == [ids[0:4], ids[4:8], ids[8:12]]


def test_fewer_rows_are_the_first_of_more(tmp_path: Path) -> None:
    folder = text_tree(tmp_path, *[f"document number {i}." for i in range(50)])
    for seed in (None, 5):
        more = token_rows(folder, TOKENIZER, 40, 16, seed=seed)
        assert torch.equal(token_rows(folder, TOKENIZER, 4, 16, seed=seed), more[:4])


def test_seed_shuffles_documents_and_loses_none(tmp_path: Path) -> None:
    folder = text_tree(tmp_path, *[chr(97 + i) * 7 for i in range(20)])
    plain = token_rows(folder, TOKENIZER, 19, 8)
    shuffled = token_rows(folder, TOKENIZER, 19, 8, seed=1)
    assert not torch.equal(plain, shuffled)
    assert torch.equal(shuffled, token_rows(folder, TOKENIZER, 19, 8, seed=1))
    # documents of seven and one EOS fill rows of eight exactly but for the last, cut one short
    assert len({tuple(row) for row in shuffled.tolist()} - {tuple(r) for r in plain.tolist()}) <= 1


def test_chat_is_rendered_with_the_models_template(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = CHAT
    folder = text_tree(tmp_path, [{"role": "user", "content": "Hi"}])
    assert tokenizer.decode(token_rows(folder, tokenizer, 1, 9)[0]) == "user: Hi\n"


def test_chat_without_a_template_is_refused(tmp_path: Path) -> None:
    folder = text_tree(tmp_path, [{"role": "user", "content": "Hi"}])
    with pytest.raises(InputError, match="no chat template"):
        token_rows(folder, TOKENIZER, 1, 4)


def test_too_short_a_text_says_how_many_tokens_it_has(tmp_path: Path) -> None:
    folder = text_tree(tmp_path, "a" * 100)
    with pytest.raises(InputError, match=says("'news'", "100 tokens", "3 rows of 40")):
        token_rows(folder, TOKENIZER, 3, 40, what="news")


def test_only_the_documents_that_are_needed_are_read(tmp_path: Path) -> None:
    folder = text_tree(tmp_path, "a" * 50)
    with (folder / "documents.jsonl").open("a") as file:
        file.write("this is no JSON\n")
    assert token_rows(folder, TOKENIZER, 1, 50).shape == (1, 50)
    with pytest.raises(json.JSONDecodeError):
        token_rows(folder, TOKENIZER, 1, 51)


def test_a_line_that_is_no_document_is_named(tmp_path: Path) -> None:
    (tmp_path / "documents.jsonl").write_text('{"body": "x"}\n')
    with pytest.raises(InputError, match="is not a document"):
        token_rows(tmp_path, TOKENIZER, 1, 4, what="news")


def test_rows_beside_others_hold_none_of_their_tokens(tmp_path: Path) -> None:
    TOKENIZER.save_pretrained(tmp_path / "model")
    store = LocalStore(tmp_path / "store")

    def text(content: str) -> TextRef:
        (tmp_path / content[0]).mkdir()
        tree = store.put_tree(text_tree(tmp_path / content[0], content))
        return TextRef(**tree.model_dump(), source="test", documents=1, characters=len(content))

    mine, other = (text("".join(chr(a + i % 23) for i in range(200))) for a in (65, 97))
    fitted = Calibration(text=mine, rows=5, row_tokens=20)
    whole = calibration_rows(fitted, store, tmp_path / "model")

    def beside(seen: Calibration) -> list[list[int]]:
        return rows_beside(fitted, seen, store, tmp_path / "model").tolist()

    # 33 tokens: all of the first row, and some of the second
    assert beside(Calibration(text=mine, rows=3, row_tokens=11)) == whole[2:].tolist()
    assert beside(Calibration(text=mine, rows=4, row_tokens=20)) == whole[4:].tolist()
    assert beside(Calibration(text=other, rows=9, row_tokens=20)) == whole.tolist()
    with pytest.raises(InputError, match="5 rows of 20 tokens"):
        beside(Calibration(text=mine, rows=1, row_tokens=81))
