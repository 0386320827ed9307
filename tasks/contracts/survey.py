"""The result of a survey: its plans with their figures, and their stability over two texts."""

from typing import Any

from pydantic import SerializerFunctionWrapHandler, model_serializer

from layerwright.tasks.contracts.base import Contract
from layerwright.tasks.contracts.evaluation import Measurement, PlanComparison
from layerwright.tasks.contracts.plan import ConversionPlan
from layerwright.tasks.contracts.profile import ModelProfile
from layerwright.tasks.contracts.returns import Crossover, WorkloadCost


class PlanOverlap(Contract):
    """How similar two plans are."""

    same_strategy: float  # share of layers that have the same strategy in both
    jaccard: float  # layers that both convert over layers that either converts; 1 if there are none


class Stability(Contract):
    """A survey's plans, chosen again from a second text; both choices measured on both domains."""

    texts: tuple[str, str]  # the texts that plans were chosen from: the recipe's, then the second
    held_out: tuple[str, str]  # the texts that plans are measured on, one per domain
    profile: ModelProfile  # from the second text, as ``plans``
    plans: dict[str, ConversionPlan]
    # the plans from the first text, then from the second
    measured: tuple[PlanComparison, PlanComparison]

    def damage(self, plan: str, chosen_on: str, family: str, measured_on: str) -> Measurement:
        """The ``family`` (``perplexity_ratio``, ``kl_mean``) of a plan, by the texts' names."""
        wanted = f"{family}.{measured_on}"
        of_plan = self.measured[self.texts.index(chosen_on)].plans[plan]
        return next(m for m in of_plan if (m.metric, m.arm) == (wanted, "candidate"))


def overlap(first: ConversionPlan, second: ConversionPlan) -> PlanOverlap:
    """The overlap of two plans for the same layers."""
    pairs = list(zip(first.summary().values(), second.summary().values(), strict=True))
    converted = [(a != "keep", b != "keep") for a, b in pairs]
    either = sum(a or b for a, b in converted)
    return PlanOverlap(
        same_strategy=sum(a == b for a, b in pairs) / len(pairs),
        jaccard=sum(a and b for a, b in converted) / either if either else 1.0,
    )


class SurveyRow(Contract):
    """One plan: its layers, its predicted and measured figures, and how to run it.

    If one text was measured, perplexity and mean KL are also given without the text's name.
    ``kl_nats`` is the mean KL to the base; with several texts, the greatest. The predicted times
    are those of the whole model at ``context_tokens``, their ratios are relative to the base.
    ``costs`` are money per million tokens. JSON omits the fields from
    ``predicted_prefill_seconds`` to ``currency`` if they are unknown.
    """

    plan: dict[str, str]
    selector: str
    metrics: dict[str, float | None]
    intervals: dict[str, tuple[float, float]]
    kl_nats: float | None
    context_tokens: int
    predicted_kv_bytes: int | None
    predicted_kv_bytes_ratio: float | None
    predicted_language_nats: float | None
    predicted_recall_nats: float | None
    predicted_prefill_seconds: float | None = None
    predicted_prefill_seconds_ratio: float | None = None
    predicted_decode_seconds_per_token: float | None = None
    predicted_decode_seconds_ratio: float | None = None
    crossovers: tuple[Crossover, ...] | None = None
    costs: tuple[WorkloadCost, ...] | None = None
    currency: str | None = None
    plan_file: str
    command: str

    @model_serializer(mode="wrap")
    def _without_unknown(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        row = serialize(self)
        optional = {name for name, f in type(self).model_fields.items() if not f.is_required()}
        for cost in row["costs"] or ():  # a survey converts nothing: it has no cost to earn back
            del cost["break_even_tokens"]
        return {name: v for name, v in row.items() if v is not None or name not in optional}


class FrontierPoint(SurveyRow):
    """A plan of the frontier; the ratio that is set is its budget, as a share of the base's."""

    name: str
    kv_bytes_ratio: float | None = None
    prefill_seconds_ratio: float | None = None
    decode_seconds_ratio: float | None = None


class Estimate(Contract):
    """A figure with its 95 % interval."""

    value: float | None
    low: float | None
    high: float | None


class SecondPlan(PlanOverlap):
    """The plan that was chosen from a second text, and its overlap with the first one."""

    second_plan: dict[str, str]
    second_plan_file: str
    damage: dict[str, dict[str, dict[str, Estimate]]]  # [measured on][chosen from][metrics' family]


class SurveyStability(Contract):
    """The plans chosen again from a second text; ``texts`` and ``held_out`` as in `Stability`."""

    texts: tuple[str, str]
    held_out: tuple[str, str]
    plans: dict[str, SecondPlan]


class Prediction(Contract):
    """The rank correlation (Spearman) of predicted and measured damage over ``plans`` plans."""

    damage: str
    metric: str
    plans: int
    spearman: float | None


class SurveyResult(Contract):
    """The result of a survey run, and the last line that ``--json`` prints."""

    run_id: str
    selectors: dict[str, SurveyRow]  # the plans of the survey's selectors by name
    frontier: tuple[FrontierPoint, ...]
    stability: SurveyStability | None = None
    seconds: dict[str, float]
    cache_hits: tuple[str, ...]
    predictions: tuple[Prediction, ...]
    report: str
    missing: tuple[str, ...]  # blocks that the recipe must add before a plan can be converted

    @property
    def rows(self) -> dict[str, SurveyRow]:
        """All plans by name; points of the frontier come last."""
        return self.selectors | {point.name: point for point in self.frontier}
