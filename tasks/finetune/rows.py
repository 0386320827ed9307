"""Training rows: token rows, with masks for padding and for the tokens in the loss.

Shapes: R rows, T tokens.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, disable_progress_bars
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from layerwright.tasks.errors import InputError
from layerwright.tasks.passes.batches import documents, encode
from layerwright.tasks.recipe.training import TrainingText

# the tag around the assistant's text in a template; Transformers builds its mask from it
GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")


@dataclass(frozen=True)
class Rows:
    """Token rows, (R, T)."""

    ids: Tensor
    counted: Tensor  # True for tokens whose prediction is in the loss; False at position 0
    real: Tensor  # False for padding, which is at the end of a row

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, chosen: Any) -> Rows:
        return self._each(lambda column: column[chosen])

    @property
    def tokens(self) -> int:
        """Number of tokens without padding."""
        return int(self.real.sum())

    def trimmed(self) -> Rows:
        """The rows without the positions that are padding in all of them."""
        return self[:, : int(self.real.sum(1).max())]

    def to(self, device: torch.device) -> Rows:
        return self._each(lambda column: column.to(device))

    def _each(self, change: Callable[[Tensor], Tensor]) -> Rows:
        return Rows(change(self.ids), change(self.counted), change(self.real))


def read_rows(
    folder: Path,
    tokenizer: PreTrainedTokenizerBase,
    options: TrainingText,
    *,
    what: str,
    at_most: int | None = None,
) -> Rows:
    """Read the documents of a text tree as training rows.

    ``documents: packed`` concatenates all documents, with EOS between them, and cuts them into full
    rows, as `tasks/passes/batches.py` does for calibration rows. ``documents: separate`` makes a
    row of each document, cut at ``row_tokens`` and padded at the end. Rows without a counted token
    are dropped.

    Args:
        what: the text's name, for error messages.
        at_most: largest number of rows; the first rows are kept.

    InputError if the text gives no row, or ``loss_on`` does not fit a document.
    """
    disable_progress_bars()  # the step shows its own bar

    def tokenize(line: dict) -> dict:
        document = json.loads(line["document"])
        if options.loss_on == "all":
            ids = encode(document, tokenizer, what)
            return {"ids": ids, "counted": [True] * len(ids)}
        ids, counted = encode_turns(document, tokenizer, what)
        return {"ids": ids, "counted": counted}

    # as JSON, because Arrow would give every message the fields of all other messages
    lines = Dataset.from_dict({"document": [json.dumps(d) for d in documents(folder, what)]})
    cut = _Cutter(tokenizer.eos_token_id, options)
    fields: dict[str, Any] = {"keep_in_memory": True, "load_from_cache_file": False}
    fields["remove_columns"] = lines.column_names
    encoded = lines.map(tokenize, new_fingerprint="encoded", **fields)
    fields["remove_columns"] = encoded.column_names
    rows = encoded.map(cut, batched=True, new_fingerprint="cut", **fields)
    if not len(rows):
        raise InputError(
            f"the text {what!r} has only {sum(map(len, encoded['ids'])):,} tokens",
            expected=f"at least one row of {options.row_tokens} tokens"
            if options.documents == "packed"
            else "a document with at least two tokens",
            remedy="add more text, or set shorter rows",
        )
    columns = rows.select(range(min(at_most or len(rows), len(rows)))).with_format("torch")[:]
    return Rows(columns["ids"].long(), columns["counted"].bool(), columns["real"].bool())


class _Cutter:
    """Cuts documents into rows; tokens of an incomplete packed row wait for the next batch."""

    def __init__(self, eos: int | None, options: TrainingText) -> None:
        self.eos, self.options = eos, options
        self.ids: list[int] = []
        self.counted: list[bool] = []
        self.started = False

    def __call__(self, batch: dict) -> dict:
        width = self.options.row_tokens
        pairs = zip(batch["ids"], batch["counted"], strict=True)
        if self.options.documents == "separate":
            return _columns([(ids[:width], counted[:width]) for ids, counted in pairs], width)
        for ids, counted in pairs:
            if self.started and self.eos is not None:
                self.ids.append(self.eos)
                self.counted.append(self.options.loss_on == "all")
            self.ids.extend(ids)
            self.counted.extend(counted)
            self.started = self.started or bool(ids)
        end = len(self.ids) // width * width
        parts = [slice(start, start + width) for start in range(0, end, width)]
        columns = _columns([(self.ids[part], self.counted[part]) for part in parts], width)
        self.ids, self.counted = self.ids[end:], self.counted[end:]
        return columns


def _columns(rows: list[tuple[list[int], list[bool]]], width: int) -> dict:
    """Pad the rows and return them as columns; drop rows without a counted token."""
    columns: dict[str, list] = {"ids": [], "counted": [], "real": []}
    for ids, counted in rows:
        counted = [False, *counted[1:]]
        if not any(counted):
            continue
        padding = width - len(ids)
        columns["ids"].append(ids + [0] * padding)  # any id: attention is causal
        columns["counted"].append(counted + [False] * padding)
        columns["real"].append([True] * len(ids) + [False] * padding)
    return columns


def encode_turns(
    document: dict, tokenizer: PreTrainedTokenizerBase, what: str
) -> tuple[list[int], list[bool]]:
    """The token ids of a chat, and for each whether the assistant wrote it.

    With generation tags in the chat template, Transformers marks the assistant's tokens. Without
    them, the chat is rendered turn by turn: the assistant's text starts after the previous turns
    and the assistant's header, and ends with the end of its turn.

    ``what`` is the text's name, for error messages. InputError if the document is not a chat, the
    model has no chat template, or the template renders the first turns of a chat differently when
    more turns follow.
    """
    if "messages" not in document:
        raise InputError(
            f"the text {what!r} has a document that is not a chat",
            where="loss_on",
            expected='{"messages": [...]} in every line',
            remedy="set loss_on: all",
        )
    template = tokenizer.chat_template
    if template is None:
        raise InputError(
            f"the text {what!r} is chat data, but the model has no chat template",
            remedy="use a plain text, or a model with a chat template",
        )
    messages = document["messages"]
    if GENERATION.search(str(template)):
        masked: Any = tokenizer.apply_chat_template(
            messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
        )
        return masked["input_ids"], [bool(mask) for mask in masked["assistant_masks"]]
    spans, rendered = _assistant_spans(messages, tokenizer, what)
    options = {"add_special_tokens": False, "return_offsets_mapping": True, "verbose": False}
    encoded = tokenizer(rendered, **options)
    inside = [
        any(token_start < stop and start < token_stop for start, stop in spans)
        for token_start, token_stop in encoded["offset_mapping"]
    ]
    return encoded["input_ids"], inside


def _assistant_spans(
    messages: list[dict], tokenizer: PreTrainedTokenizerBase, what: str
) -> tuple[list[tuple[int, int]], str]:
    """The character ranges of the assistant's turns, and the rendered chat."""

    def render(count: int, prompt: bool = False) -> str:
        options: dict[str, Any] = {"tokenize": False, "add_generation_prompt": prompt}
        return str(tokenizer.apply_chat_template(messages[:count], **options))

    rendered, spans = render(len(messages)), []
    for index, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = render(index, prompt=True) if index else ""
        until = render(index + 1)
        if not until.startswith(before) or not rendered.startswith(until):
            raise InputError(
                f"the model's chat template renders the first turns of a chat in {what!r} "
                "differently when more turns follow, so the assistant's tokens are unknown",
                where="loss_on",
                remedy="set loss_on: all, or use a template with generation tags",
            )
        spans.append((len(before), len(until)))
    return spans, rendered
