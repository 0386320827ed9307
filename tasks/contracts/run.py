"""What a finished convert run says of itself."""

from __future__ import annotations

from typing import Literal

from layerwright.tasks.contracts.base import Contract
from layerwright.tasks.contracts.crossover import Crossover
from layerwright.tasks.contracts.plan import RepairRound
from layerwright.tasks.contracts.references import TreeRef
from layerwright.tasks.contracts.registration import Registration
from layerwright.tasks.contracts.returns import CostAndReturn


class RunSummary(Contract):
    """The result of a convert run, and the last line that ``--json`` prints."""

    run_id: str
    decision: Literal["accepted", "rejected"]
    registered: Registration | None
    checkpoint: TreeRef
    plan: dict[str, str]
    metrics: dict[str, dict[str, float | None]]
    seconds: dict[str, float]
    cache_hits: tuple[str, ...]
    report: str
    failed_checks: tuple[str, ...] = ()
    repairs: tuple[RepairRound, ...] = ()  # every plan that was rejected, in order
    crossovers: tuple[Crossover, ...] = ()
    cost: CostAndReturn | None = None  # where the recipe gives a price


class Page(Contract):
    """Where a page of HTML lies."""

    uri: str
