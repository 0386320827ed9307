"""The recipe's `convert` block."""

from __future__ import annotations

from layerwright.tasks.contracts.base import Contract, Positive


class ConvertOptions(Contract):
    """What strategies that fit tensors are fitted on; the profile's rows where left out."""

    text: str
    rows: Positive = 16
    row_tokens: Positive = 1024
