"""The recipe's `repair` block."""

from __future__ import annotations

from pydantic import Field

from layerwright.tasks.contracts.base import Contract, Number, Positive


class RepairOptions(Contract):
    """Layers given back after the gate rejected on quality, and the rest of the DAG again.

    ``rounds`` at most, ``layers`` in each; ``recall_weight`` as in the selector `milp`.
    """

    rounds: Positive = 2
    layers: Positive = 2
    recall_weight: Number = Field(default=0.1, ge=0)
