"""The inputs of the pages of runs and surveys; a page is a function of its bundle alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

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
from layerwright.tasks.contracts.returns import CostAndReturn, Price
from layerwright.tasks.contracts.survey import Stability
from layerwright.tasks.contracts.training import FinetuneReport, RegularizationReport
from layerwright.tasks.report.drift import LayerDrift, layer_drifts
from layerwright.tasks.report.recall import RecallCell, recall_cells
from layerwright.tasks.report.regressions import Regressions, regressions

PredictedFigure = Literal["predicted_language_nats", "predicted_recall_nats", "predicted_kv_bytes"]


class RunBundle(Contract):
    """The inputs that the page of a run and the page of a survey share.

    Attributes:
        started_at, finished_at: ISO 8601.
        costs: the cost table from which the plans' times were predicted.
        seconds, cache_hits: by step.
        environment: versions of libraries, and the device.
    """

    run_id: str
    recipe_name: str
    recipe_yaml: str
    started_at: str
    finished_at: str
    model: ModelRef
    texts: dict[str, TextRef]
    profile: ModelProfile
    costs: CostTable | None = None
    seconds: dict[str, float] = {}
    cache_hits: tuple[str, ...] = ()
    environment: dict[str, str] = {}


class ReportBundle(RunBundle):
    """A finished convert run.

    ``predicted_times`` are what ``costs`` say of the plan, by context length. ``recall`` and
    ``regressions`` are taken from the evaluation's per-item results.
    """

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
    def _nothing_rejected_is_registered(self) -> ReportBundle:
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
        if tokens != self.plan.context_tokens:
            return None
        return total_of(self.plan, "predicted_kv_bytes")


def report_bundle(items: Sequence[ItemResult], **facts: Any) -> ReportBundle:
    """A bundle of these facts, with what the page shows of the per-item results.

    Args:
        items: the evaluation's per-item results, in order.
        facts: the other fields of `ReportBundle`.
    """
    return ReportBundle(
        **facts,
        recall=recall_cells(items),
        drift=layer_drifts(items),
        regressions=regressions(facts["evaluation"], items),
    )


class SurveyPlan(Contract):
    """One plan of a survey.

    Attributes:
        file: the plan's YAML file.
        command: the command that converts with this plan.
        budget: for points of the frontier: the budget, as a share of the base.
    """

    plan: ConversionPlan
    file: str
    command: str
    budget: float | None = None

    @property
    def converted_layers(self) -> int:
        return sum(strategy != "keep" for strategy in self.plan.summary().values())


class SurveyBundle(RunBundle):
    """A finished survey.

    Attributes:
        plans: by name; ``comparison`` has their measurements.
        budget: the quantity that the frontier's budgets limit.
        missing: blocks that the recipe needs before it can convert.
    """

    plans: dict[str, SurveyPlan]
    comparison: PlanComparison
    stability: Stability | None = None
    price: Price | None = None
    budget: FrontierBudget = "kv_bytes_ratio"
    missing: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _all_measured(self) -> SurveyBundle:
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
