"""The inputs of the pages; a page is a function of its bundle alone."""

from collections.abc import Sequence
from typing import Any, Literal, Self

from pydantic import model_validator

from layerwright.tasks.contracts.base import Contract
from layerwright.tasks.contracts.costs import CostTable, planned_ratio
from layerwright.tasks.contracts.evaluation import EvalReport, PlanComparison
from layerwright.tasks.contracts.gate import GateDecision
from layerwright.tasks.contracts.items import ItemResult
from layerwright.tasks.contracts.plan import ConversionPlan, FrontierBudget, PassTime, RepairRound
from layerwright.tasks.contracts.profile import ModelProfile
from layerwright.tasks.contracts.promotion import Registration
from layerwright.tasks.contracts.references import CheckpointRef, ModelRef, TextRef
from layerwright.tasks.contracts.requalification import Alarm, TrendPoint
from layerwright.tasks.contracts.returns import CostAndReturn, Price
from layerwright.tasks.contracts.survey import Stability
from layerwright.tasks.contracts.training import FinetuneReport, RegularizationReport
from layerwright.tasks.recipe.gate import WatchRule
from layerwright.tasks.report.drift import LayerDrift, layer_drifts
from layerwright.tasks.report.recall import RecallCell, recall_cells
from layerwright.tasks.report.regressions import Regressions, regressions

PredictedFigure = Literal["predicted_language_nats", "predicted_recall_nats", "predicted_kv_bytes"]


class PageBundle(Contract):
    """The inputs of every page: times are ISO 8601; ``seconds`` and ``cache_hits`` are by step."""

    run_id: str
    recipe_name: str
    recipe_yaml: str
    started_at: str
    finished_at: str
    model: ModelRef
    seconds: dict[str, float] = {}
    cache_hits: tuple[str, ...] = ()
    environment: dict[str, str] = {}  # versions of libraries, and the device


class RequalificationBundle(PageBundle):
    """A finished requalification. It is the last point of ``trend``."""

    registered_name: str
    version: str
    evaluation: EvalReport
    gate: GateDecision
    watch: tuple[WatchRule, ...]
    alarms: tuple[Alarm, ...]
    trend: tuple[TrendPoint, ...]


class RunBundle(PageBundle):
    """The inputs that the page of a run and the page of a survey share."""

    texts: dict[str, TextRef]
    profile: ModelProfile
    costs: CostTable | None = None  # the plans' times were predicted from it


class ReportBundle(RunBundle):
    """A finished convert run. ``predicted_times`` are by context length."""

    plan: ConversionPlan
    regularization: RegularizationReport | None = None
    converted: CheckpointRef
    finetune: FinetuneReport | None = None
    evaluation: EvalReport
    gate: GateDecision
    repairs: tuple[RepairRound, ...] = ()
    registration: Registration | None = None
    cost: CostAndReturn | None = None
    predicted_times: dict[int, PassTime] = {}
    recall: tuple[RecallCell, ...] = ()
    drift: tuple[LayerDrift, ...] = ()
    regressions: tuple[Regressions, ...] = ()

    @model_validator(mode="after")
    def _nothing_rejected_is_registered(self) -> Self:
        if self.registration is not None and not self.gate.accepted:
            raise ValueError("no registration, because the gate rejected the candidate")
        return self

    @property
    def verdict(self) -> Literal["accepted", "rejected"]:
        return "accepted" if self.gate.accepted else "rejected"

    @property
    def checkpoint(self) -> CheckpointRef:
        """The candidate: the fine-tuned checkpoint, or the converted one without fine-tuning."""
        return self.finetune.checkpoint if self.finetune else self.converted

    def predicted_kv(self, tokens: int) -> float | None:
        """The predicted KV bytes of the whole model, batch 1; None except at the plan's length."""
        planned = tokens == self.plan.context_tokens
        return total_of(self.plan, "predicted_kv_bytes") if planned else None


def report_bundle(items: Sequence[ItemResult], **facts: Any) -> ReportBundle:
    """A bundle of these facts, with what the page shows of the evaluation's per-item results."""
    return ReportBundle(
        **facts,
        recall=recall_cells(items),
        drift=layer_drifts(items),
        regressions=regressions(facts["evaluation"], items),
    )


class SurveyPlan(Contract):
    """One plan of a survey, its YAML file, and the command that converts with it."""

    plan: ConversionPlan
    file: str
    command: str
    budget: float | None = None  # of a point of the frontier, as a share of the base

    @property
    def converted_layers(self) -> int:
        return sum(strategy != "keep" for strategy in self.plan.summary().values())


class SurveyBundle(RunBundle):
    """A finished survey: the plans by name, and their measurements."""

    plans: dict[str, SurveyPlan]
    comparison: PlanComparison
    stability: Stability | None = None
    price: Price | None = None
    budget: FrontierBudget = "kv_bytes_ratio"  # the quantity that the frontier limits
    missing: tuple[str, ...] = ()  # blocks that the recipe needs before it can convert

    @model_validator(mode="after")
    def _all_measured(self) -> Self:
        if set(self.plans) != set(self.comparison.plans):
            raise ValueError("measurements of all plans of the survey and of no others")
        if self.stability and not set(self.stability.plans) <= set(self.plans):
            raise ValueError("second choices only of plans of the survey")
        return self

    def kv_ratio(self, name: str) -> float | None:
        """The plan's predicted KV bytes over the base's, at the plan's context length."""
        plan = self.plans[name].plan
        planned = total_of(plan, "predicted_kv_bytes")
        base = self.profile.base_kv_bytes(plan.context_tokens)
        return planned / base if base and planned is not None else None

    def share(self, name: str) -> float | None:
        """The plan's prediction for the quantity in ``budget``, over the base's."""
        if self.budget == "kv_bytes_ratio":
            return self.kv_ratio(name)
        ratio = planned_ratio(self.plans[name].plan)
        if ratio is None:
            return None
        return ratio.prefill if self.budget == "prefill_seconds_ratio" else ratio.decode


def total_of(plan: ConversionPlan, figure: PredictedFigure) -> float | None:
    """The sum of a predicted figure over a plan's items; None if an item lacks it."""
    parts = [getattr(item, figure) for item in plan.items]
    return None if None in parts else sum(parts)
