"""The texts of an evaluation, as folders and as rows of tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from layerwright.tasks.evaluate.base import TextPass
from layerwright.tasks.passes.batches import token_rows


class Texts:
    """Texts by name, each cut into the same rows for every arm, and tokenized once.

    Args:
        folders: of each text, with ``documents.jsonl``.
        tokenizer: loads the base's tokenizer, which all arms share.
    """

    def __init__(
        self, folders: Mapping[str, Path], tokenizer: Callable[[], PreTrainedTokenizerBase]
    ) -> None:
        self.folders = folders
        self._load_tokenizer = tokenizer
        self._rows: dict[TextPass, Tensor] = {}

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return self._load_tokenizer()

    def rows(self, wanted: TextPass) -> Tensor:
        """(rows, row_tokens) token ids.

        Raises:
            InputError: the text is too short.
        """
        if wanted not in self._rows:
            self._rows[wanted] = token_rows(
                self.folders[wanted.text],
                self.tokenizer,
                wanted.rows,
                wanted.row_tokens,
                what=wanted.text,
            )
        return self._rows[wanted]
