"""The recipe's `evaluate` block."""

from __future__ import annotations

from pydantic import Field

from layerwright.tasks.contracts.base import Contract, Spec


class EvaluateOptions(Contract):
    metrics: tuple[Spec, ...] = Field(min_length=1)
    control: bool = False
