"""The recipe's `repair` block."""

from __future__ import annotations

from pydantic import Field

from layerwright.tasks.contracts.base import Contract, Number, Positive


class RepairOptions(Contract):
    """Repair after a rejection for quality: keep the most damaging layers unconverted, and run the
    rest of the DAG again.

    Attributes:
        rounds: maximum number of repairs.
        layers: layers given back per round.
        recall_weight: weight of recall damage against language damage, as in the selector `milp`.
    """

    rounds: Positive = 2
    layers: Positive = 2
    recall_weight: Number = Field(default=0.1, ge=0)
