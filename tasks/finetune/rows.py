"""Training rows: token rows, with masks for padding and for the tokens in the loss.

Shapes: R rows, T tokens.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from datasets import Dataset, disable_progress_bars
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from layerwright.tasks.errors import InputError
from layerwright.tasks.finetune.chat import encode_turns
from layerwright.tasks.passes.batches import documents, encode
from layerwright.tasks.recipe.training import TrainingText


@dataclass(frozen=True)
class Rows:
    """Token rows.

    Attributes:
        ids: (R, T) int64.
        counted: (R, T) True for tokens whose prediction is in the loss; False at position 0.
        real: (R, T) False for padding, which is at the end of a row.
    """

    ids: Tensor
    counted: Tensor
    real: Tensor

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, chosen: Sequence[int] | slice) -> Rows:
        return Rows(self.ids[chosen], self.counted[chosen], self.real[chosen])

    @property
    def tokens(self) -> int:
        """Number of tokens without padding."""
        return int(self.real.sum())

    def split(self, at_once: int) -> Iterator[Rows]:
        """Yield batches of ``at_once`` rows, cut to their longest row."""
        for first in range(0, len(self), at_once):
            batch = self[first : first + at_once]
            width = int(batch.real.sum(1).max())
            yield Rows(batch.ids[:, :width], batch.counted[:, :width], batch.real[:, :width])

    def to(self, device: torch.device) -> Rows:
        return replace(
            self,
            ids=self.ids.to(device),
            counted=self.counted.to(device),
            real=self.real.to(device),
        )


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
        folder: the text tree.
        options: how to cut the rows, and which tokens count.
        what: the text's name, for error messages.
        at_most: largest number of rows; the first rows are kept.

    Raises:
        InputError: the text gives no row, or ``loss_on`` does not fit a document.
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
    packed = options.documents == "packed"
    cut = _Packer(tokenizer.eos_token_id, options) if packed else _Padder(options)
    in_memory = {"keep_in_memory": True, "load_from_cache_file": False}
    encoded = lines.map(
        tokenize, remove_columns=lines.column_names, new_fingerprint="encoded", **in_memory
    )
    rows = encoded.map(
        cut, batched=True, remove_columns=encoded.column_names, new_fingerprint="cut", **in_memory
    )
    if not len(rows):
        raise InputError(
            f"the text {what!r} has only {sum(map(len, encoded['ids'])):,} tokens",
            expected=f"at least one row of {options.row_tokens} tokens"
            if packed
            else "a document with at least two tokens",
            remedy="add more text, or set shorter rows",
        )
    columns = rows.select(range(min(at_most or len(rows), len(rows)))).with_format("torch")[:]
    return Rows(columns["ids"].long(), columns["counted"].bool(), columns["real"].bool())


class _Packer:
    """Concatenates documents; the tokens of an incomplete row wait for the next batch."""

    def __init__(self, eos: int | None, options: TrainingText) -> None:
        self.eos, self.options = eos, options
        self.ids: list[int] = []
        self.counted: list[bool] = []
        self.started = False

    def __call__(self, batch: dict) -> dict:
        for ids, counted in zip(batch["ids"], batch["counted"], strict=True):
            if self.started and self.eos is not None:
                self.ids.append(self.eos)
                self.counted.append(self.options.loss_on == "all")
            self.ids.extend(ids)
            self.counted.extend(counted)
            self.started = self.started or bool(ids)
        width = self.options.row_tokens
        end = len(self.ids) // width * width
        starts = range(0, end, width)
        columns = _columns(
            [(self.ids[i : i + width], self.counted[i : i + width]) for i in starts], width
        )
        self.ids, self.counted = self.ids[end:], self.counted[end:]
        return columns


class _Padder:
    """Makes a row of each document."""

    def __init__(self, options: TrainingText) -> None:
        self.width = options.row_tokens

    def __call__(self, batch: dict) -> dict:
        pairs = zip(batch["ids"], batch["counted"], strict=True)
        cut = [(ids[: self.width], counted[: self.width]) for ids, counted in pairs]
        return _columns(cut, self.width)


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
