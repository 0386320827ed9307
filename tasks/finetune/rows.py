"""Rows of tokens to train on, and which of their tokens count.

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

from layerwright.tasks.contracts.references import TextRef
from layerwright.tasks.errors import InputError
from layerwright.tasks.finetune.chat import encode_turns
from layerwright.tasks.passes.batches import documents, encode
from layerwright.tasks.recipe.finetune import FinetuneOptions
from layerwright.tasks.recipe.regularize import RegularizeOptions
from layerwright.tasks.recipe.training import TrainingText
from layerwright.tasks.store.base import Store


@dataclass(frozen=True)
class Rows:
    """Token rows.

    Attributes:
        ids: (R, T) int64.
        counted: (R, T) whether predicting this token counts; never at position 0.
        real: (R, T) False for padding, which stands at the end of a row.
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
        """Real tokens."""
        return int(self.real.sum())

    def split(self, at_once: int) -> Iterator[Rows]:
        """Batches of ``at_once`` rows, each as wide as its longest row."""
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


def all_real(ids: Tensor) -> Rows:
    """Rows without padding in which every token but the first counts."""
    counted = torch.ones_like(ids, dtype=torch.bool)
    counted[:, 0] = False
    return Rows(ids, counted, torch.ones_like(counted))


def training_rows(
    store: Store,
    text: TextRef,
    held_out: TextRef | None,
    tokenizer: PreTrainedTokenizerBase,
    options: FinetuneOptions | RegularizeOptions,
) -> tuple[Rows, Rows | None]:
    """The rows that are trained on, and those of the validation where the options name one.

    Raises:
        InputError: see `read_rows`.
    """
    rows = read_rows(store.open_tree(text.sha256), tokenizer, options, what=options.text)
    if options.validation is None or held_out is None:
        return rows, None
    held_rows = read_rows(
        store.open_tree(held_out.sha256),
        tokenizer,
        options,
        what=options.validation.text,
        at_most=options.validation.rows,
    )
    return rows, held_rows


def read_rows(
    folder: Path,
    tokenizer: PreTrainedTokenizerBase,
    how: TrainingText,
    *,
    what: str,
    at_most: int | None = None,
) -> Rows:
    """The rows of a text tree, cut as a recipe says.

    ``packed``: the documents' tokens end to end, EOS between two, cut into whole rows, as
    `tasks/passes/batches.py` cuts them for measuring. ``separate``: a document a row, cut at
    ``row_tokens``, padded at the end. Rows in which no token counts are left out.

    Args:
        what: the text's name, for messages.
        at_most: this many rows from the beginning.

    Raises:
        InputError: not one row, or documents that ``loss_on`` cannot read.
    """
    disable_progress_bars()  # a step shows one bar, its own

    def tokenize(line: dict) -> dict:
        document = json.loads(line["document"])
        if how.loss_on == "all":
            ids = encode(document, tokenizer, what)
            return {"ids": ids, "counted": [True] * len(ids)}
        ids, counted = encode_turns(document, tokenizer, what)
        return {"ids": ids, "counted": counted}

    # as JSON: Arrow would give every message the fields of all others
    lines = Dataset.from_dict({"document": [json.dumps(d) for d in documents(folder, what)]})
    cut = _Packer(tokenizer.eos_token_id, how) if how.documents == "packed" else _Padder(how)
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
            expected=f"at least one row of {how.row_tokens} tokens"
            if how.documents == "packed"
            else "a document of two tokens at least",
            remedy="give it more text, or ask for shorter rows",
        )
    columns = rows.select(range(min(at_most or len(rows), len(rows)))).with_format("torch")[:]
    return Rows(columns["ids"].long(), columns["counted"].bool(), columns["real"].bool())


class _Packer:
    """Documents end to end; what does not fill a row waits for the next batch of documents."""

    def __init__(self, eos: int | None, how: TrainingText) -> None:
        self.eos, self.how = eos, how
        self.ids: list[int] = []
        self.counted: list[bool] = []
        self.started = False

    def __call__(self, batch: dict) -> dict:
        for ids, counted in zip(batch["ids"], batch["counted"], strict=True):
            if self.started and self.eos is not None:
                self.ids.append(self.eos)
                self.counted.append(self.how.loss_on == "all")
            self.ids.extend(ids)
            self.counted.extend(counted)
            self.started = self.started or bool(ids)
        width = self.how.row_tokens
        whole = len(self.ids) // width * width
        starts = range(0, whole, width)
        found = _columns(
            [(self.ids[i : i + width], self.counted[i : i + width]) for i in starts], width
        )
        self.ids, self.counted = self.ids[whole:], self.counted[whole:]
        return found


class _Padder:
    """A document a row."""

    def __init__(self, how: TrainingText) -> None:
        self.width = how.row_tokens

    def __call__(self, batch: dict) -> dict:
        pairs = zip(batch["ids"], batch["counted"], strict=True)
        cut = [(ids[: self.width], counted[: self.width]) for ids, counted in pairs]
        return _columns(cut, self.width)


def _columns(rows: list[tuple[list[int], list[bool]]], width: int) -> dict:
    """Rows as columns, padded; those in which nothing counts are left out."""
    found: dict[str, list] = {"ids": [], "counted": [], "real": []}
    for ids, counted in rows:
        counted = [False, *counted[1:]]
        if not any(counted):
            continue
        padding = width - len(ids)
        found["ids"].append(ids + [0] * padding)  # causal: no token before it sees it
        found["counted"].append(counted + [False] * padding)
        found["real"].append([True] * len(ids) + [False] * padding)
    return found
