"""The recipe's `convert` block."""

from __future__ import annotations

from layerwright.tasks.contracts.base import Contract, Positive


class ConvertOptions(Contract):
    """The calibration rows on which strategies fit tensors; without it, the profile's rows."""

    text: str
    rows: Positive = 16
    row_tokens: Positive = 1024
