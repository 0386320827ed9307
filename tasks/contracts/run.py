"""The result of a convert run."""

from typing import Literal

from layerwright.tasks.contracts.base import Contract
from layerwright.tasks.contracts.plan import RepairRound
from layerwright.tasks.contracts.promotion import Registration
from layerwright.tasks.contracts.references import TreeRef
from layerwright.tasks.contracts.returns import CostAndReturn, Crossover


class RunSummary(Contract):
    """The result of a convert run. ``--json`` prints it as the last line."""

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
    repairs: tuple[RepairRound, ...] = ()  # every rejected plan, in order
    crossovers: tuple[Crossover, ...] = ()
    cost: CostAndReturn | None = None  # None if the recipe gives no price


class Page(Contract):
    """The address of a written HTML page."""

    uri: str
