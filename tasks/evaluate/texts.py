"""The texts of an evaluation, as folders and as token rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from layerwright.tasks.passes.batches import token_rows


@dataclass(frozen=True)
class TextPass:
    """A forward pass over rows of a text; each arm runs it once for all metrics.

    Attributes:
        text: name of the text.
        rows: number of rows.
        row_tokens: tokens of each row.
        divergence: whether the other arms are compared with the base, token by token. Passes that
            differ only in this are equal, because a single pass serves both.
    """

    text: str
    rows: int
    row_tokens: int
    divergence: bool = field(default=False, compare=False)

    @property
    def tokens(self) -> int:
        return self.rows * self.row_tokens


class Texts:
    """Texts by name; tokenized once, and cut into the same rows for every arm.

    Args:
        folders: the tree of each text, with ``documents.jsonl``.
        tokenizer: loads the base's tokenizer, which all arms use.
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

    def rows(self, text_pass: TextPass) -> Tensor:
        """(rows, row_tokens) token ids.

        Raises:
            InputError: the text is too short.
        """
        if text_pass not in self._rows:
            self._rows[text_pass] = token_rows(
                self.folders[text_pass.text],
                self.tokenizer,
                text_pass.rows,
                text_pass.row_tokens,
                what=text_pass.text,
            )
        return self._rows[text_pass]
