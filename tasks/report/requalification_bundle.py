"""The input of the requalification page."""

from __future__ import annotations

from layerwright.tasks.contracts.base import Contract
from layerwright.tasks.contracts.evaluation import EvalReport
from layerwright.tasks.contracts.gate import GateDecision
from layerwright.tasks.contracts.references import ModelRef
from layerwright.tasks.contracts.requalification import Alarm, TrendPoint
from layerwright.tasks.recipe.gate import WatchRule


class RequalificationBundle(Contract):
    """A finished requalification. It is the last point of ``trend``."""

    run_id: str
    recipe_name: str
    recipe_yaml: str
    started_at: str
    finished_at: str
    registered_name: str
    version: str
    model: ModelRef
    evaluation: EvalReport
    gate: GateDecision
    watch: tuple[WatchRule, ...]
    alarms: tuple[Alarm, ...]
    trend: tuple[TrendPoint, ...]
    seconds: dict[str, float] = {}
    cache_hits: tuple[str, ...] = ()
    environment: dict[str, str] = {}
