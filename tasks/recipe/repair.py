"""The recipe's `repair` block."""

from __future__ import annotations

from pydantic import Field

from layerwright.tasks.contracts.base import Contract, Number, Positive


class RepairOptions(Contract):
    """Repair after a rejection for quality: keep the most damaging layers unconverted, and run the
    rest of the DAG again."""

    rounds: Positive = 2  # maximum number of repairs
    layers: Positive = 2  # layers given back per round
    # weight of recall damage against language damage, as in the selector `milp`
    recall_weight: Number = Field(default=0.1, ge=0)
