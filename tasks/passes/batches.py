"""Builds token rows from a text tree: documents are packed end to end and cut without overlap."""

import json
import random
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from layerwright.tasks.contracts.references import Calibration
from layerwright.tasks.errors import InputError
from layerwright.tasks.models.loading import load_tokenizer
from layerwright.tasks.store.base import Store

DOCUMENTS = "documents.jsonl"


def token_rows(
    text_folder: Path,
    tokenizer: PreTrainedTokenizerBase,
    rows: int,
    row_tokens: int,
    *,
    seed: int | None = None,
    what: str = "text",
) -> Tensor:
    """The first rows of a text, (rows, row_tokens) int64.

    Documents are concatenated with EOS between them; a text of one document is exactly
    ``tokenizer(text).input_ids``. Only as many documents are read as needed.

    Args:
        seed: shuffles the documents first; None keeps their order.
        what: the text's name, for messages.

    Raises:
        InputError: the text is too short, or a line is not a document.
    """
    needed = rows * row_tokens
    tokens: list[int] = []
    for document in documents(text_folder, what, seed):
        if tokens and tokenizer.eos_token_id is not None:
            tokens.append(tokenizer.eos_token_id)
        tokens.extend(encode(document, tokenizer, what))
        if len(tokens) >= needed:
            return torch.tensor(tokens[:needed]).view(rows, row_tokens)
    raise InputError(
        f"the text {what!r} has only {len(tokens):,} tokens",
        expected=f"{rows} rows of {row_tokens} tokens = {needed:,} tokens",
        remedy="add text, or ask for fewer or shorter rows",
    )


def calibration_rows(calibration: Calibration, store: Store, model_folder: Path) -> Tensor:
    """The rows for fitting strategies, in the tokens of the checkpoint in ``model_folder``."""
    folder, tokenizer = store.open_tree(calibration.text.sha256), load_tokenizer(model_folder)
    rows, row_tokens = calibration.rows, calibration.row_tokens
    return token_rows(folder, tokenizer, rows, row_tokens, what="calibration")


def rows_beside(
    calibration: Calibration, seen: Calibration, store: Store, model_folder: Path
) -> Tensor:
    """The calibration rows without the rows that share tokens with ``seen``.

    A fit is judged on ``seen``, so it must not use the same tokens.

    Raises:
        InputError: no row is left.
    """
    rows = calibration_rows(calibration, store, model_folder)
    if calibration.text.sha256 != seen.text.sha256:
        return rows
    overlapping = -(-seen.rows * seen.row_tokens // calibration.row_tokens)
    if overlapping >= len(rows):
        raise InputError(
            f"all {len(rows)} calibration rows for fitting strategies are also used to try plans",
            where="convert.rows",
            expected=f"more than {overlapping} rows of {calibration.row_tokens} tokens, "
            "or another text",
        )
    return rows[overlapping:]


def documents(folder: Path, what: str, seed: int | None = None) -> Iterator[dict]:
    """The documents of a text tree, shuffled if a seed is given.

    Raises:
        InputError: the folder is not a text tree, or a line is not a document.
    """
    path = folder / DOCUMENTS
    if not path.is_file():
        raise InputError(f"the text {what!r} has no {DOCUMENTS}", where=str(folder))
    with path.open(encoding="utf-8") as file:
        lines = file if seed is None else file.readlines()
        if isinstance(lines, list):
            random.Random(seed).shuffle(lines)
        for line in lines:
            document = json.loads(line)
            if not isinstance(document, dict) or not ({"text", "messages"} & document.keys()):
                raise InputError(
                    f"a line of the text {what!r} is not a document",
                    where=str(path),
                    expected='{"text": ...} or {"messages": [...]}',
                )
            yield document


def encode(document: dict, tokenizer: PreTrainedTokenizerBase, what: str) -> list[int]:
    """Token ids of one document; chat data is rendered with the model's chat template.

    Raises:
        InputError: the document is chat data, but the model has no chat template.
    """
    if "text" in document:
        # verbose=False hides the warning about long documents; they are cut into rows later
        return tokenizer(document["text"], verbose=False).input_ids
    if tokenizer.chat_template is None:
        raise InputError(
            f"the text {what!r} is chat data, but the model has no chat template",
            remedy="use plain text, or a model with a chat template",
        )
    rendered = tokenizer.apply_chat_template(document["messages"], tokenize=False)
    return tokenizer(rendered, add_special_tokens=False, verbose=False).input_ids
