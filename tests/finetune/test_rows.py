"""Rows are cut as a recipe says, and count what it says."""

import json

import pytest
import torch
from facts import says
from tiny_checkpoint import byte_tokenizer

from layerwright.tasks.errors import InputError
from layerwright.tasks.finetune.rows import read_rows
from layerwright.tasks.passes.batches import token_rows
from layerwright.tasks.recipe.training import TrainingText

TOKENIZER = byte_tokenizer()
PLAIN = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}"
PROMPT = "{% if add_generation_prompt %}<assistant>{% endif %}"
MARKED = (
    "{% for m in messages %}<{{ m.role }}>{% if m.role == 'assistant' %}{% generation %}"
    "{{ m.content }}\n{% endgeneration %}{% else %}{{ m.content }}\n{% endif %}{% endfor %}"
)
CHAT = {
    "messages": [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello!"},
        {"role": "user", "content": "And?", "tool": "none"},
        {"role": "assistant", "content": "So."},
    ]
}


def tree(folder, *documents):
    lines = [json.dumps(d if isinstance(d, dict) else {"text": d}) for d in documents]
    (folder / "documents.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def read(folder, tokenizer=TOKENIZER, **how):
    at_most = how.pop("at_most", None)
    options = TrainingText(text="t", **how)
    return read_rows(folder, tokenizer, options, what="news", at_most=at_most)


def text_of(ids, tokenizer=TOKENIZER):
    return tokenizer.decode(ids)


def test_packed_rows_are_those_that_are_measured_on(tmp_path):
    # more documents than datasets maps at a time: what is left over is carried on
    folder = tree(tmp_path, *[f"Document {i}." for i in range(1500)])
    rows = read(folder, row_tokens=7)
    assert torch.equal(rows.ids, token_rows(folder, TOKENIZER, len(rows), 7))
    with pytest.raises(InputError):
        token_rows(folder, TOKENIZER, len(rows) + 1, 7)
    assert not rows.counted[:, 0].any()
    assert rows.counted[:, 1:].all()
    assert rows.real.all()
    assert rows.tokens == rows.ids.numel()


def test_at_most_takes_the_first_rows(tmp_path):
    folder = tree(tmp_path, "abcdefghijklmnop")
    assert torch.equal(
        read(folder, row_tokens=4, at_most=2).ids, read(folder, row_tokens=4).ids[:2]
    )


def test_separate_documents_are_cut_and_padded(tmp_path):
    rows = read(tree(tmp_path, "abc", "abcdefgh", "x"), row_tokens=5, documents="separate")
    assert rows.real.sum(1).tolist() == [3, 5], "one token alone predicts nothing"
    assert text_of(rows.ids[0, :3]) == "abc"
    assert text_of(rows.ids[1]) == "abcde"
    assert rows.counted[0].tolist() == [False, True, True, False, False]
    assert [rows[chosen].trimmed().ids.shape[1] for chosen in ([0], [1], [0, 1])] == [3, 5, 5]


@pytest.mark.parametrize("template", [PLAIN + PROMPT, MARKED])
def test_the_assistants_tokens_alone_count(tmp_path, template):
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = template
    folder = tree(tmp_path, CHAT)
    rows = read(folder, tokenizer, row_tokens=64, documents="separate", loss_on="assistant")
    assert text_of(rows.ids[0][rows.counted[0]], tokenizer) == "Hello!\nSo.\n"
    everything = read(folder, tokenizer, row_tokens=64, documents="separate")
    assert torch.equal(everything.ids, rows.ids)
    whole = "<user>Hi\n<assistant>Hello!\n<user>And?\n<assistant>So.\n"
    assert text_of(everything.ids[0][everything.real[0]], tokenizer) == whole


def test_packed_chats_do_not_count_what_stands_between_them(tmp_path):
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = PLAIN + PROMPT
    # a chat and its EOS are two rows exactly, but for the last that is cut one short
    rows = read(tree(tmp_path, CHAT, CHAT), tokenizer, row_tokens=27, loss_on="assistant")
    counted = [text_of(rows.ids[i][rows.counted[i]], tokenizer) for i in range(len(rows))]
    assert counted == ["Hello!\n", "So.\n", "Hello!\n"]


@pytest.mark.parametrize(
    ("document", "template", "told"),
    [
        ("plain text", PLAIN, "not a chat"),
        (CHAT, None, "no chat template"),
        (CHAT, PLAIN + "{{ messages | length }}", "assistant's tokens are unknown"),
    ],
)
def test_what_has_no_assistant_is_refused(tmp_path, document, template, told):
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = template
    with pytest.raises(InputError, match=told):
        read(tree(tmp_path, document), tokenizer, row_tokens=8, loss_on="assistant")


def test_a_text_without_a_row_is_refused(tmp_path):
    with pytest.raises(InputError, match=says("'news'", "9 tokens")):
        read(tree(tmp_path, "Too short"), row_tokens=10)
