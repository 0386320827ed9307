"""The conversion plan: the strategy of every layer, and the repair rounds that changed it."""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from layerwright.tasks.contracts.base import Contract, Spec

FrontierBudget = Literal["kv_bytes_ratio", "prefill_seconds_ratio", "decode_seconds_ratio"]


class PassTime(Contract):
    """Time of a model or of some layers: to read a whole context, and per generated token."""

    prefill_seconds: float
    decode_seconds_per_token: float


class PlanItem(Contract):
    """One strategy for layers ``start`` to ``stop`` (exclusive)."""

    start: int = Field(ge=0)
    stop: int
    strategy: str
    params: dict[str, Any] = {}  # options of the strategy
    reason: str = ""
    predicted_language_nats: float | None = None  # predicted damage (contracts/profile.py)
    predicted_recall_nats: float | None = None
    predicted_kv_bytes: int | None = None  # at the plan's ``context_tokens``, batch 1
    predicted_time: PassTime | None = None  # of these layers, at the plan's ``context_tokens``

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.stop <= self.start:
            raise ValueError(f"stop greater than start ({self.start}), not {self.stop}")
        return self

    @property
    def spec(self) -> Spec:
        return Spec(name=self.strategy, **self.params)


class ConversionPlan(Contract):
    """The strategy of every layer; people may edit the file."""

    model_sha256: str
    layers: int = Field(gt=0, le=10_000)
    context_tokens: int = Field(gt=0)
    selector: str
    items: tuple[PlanItem, ...]  # cover all layers in order, each layer once
    repaired_from: str | None = None  # identity of the rejected plan that this one repairs
    costs_sha256: str | None = None  # digest of the cost table that the times were predicted from
    base_time: PassTime | None = None  # predicted time of the whole base
    outside_time: PassTime | None = None  # predicted time of embeddings, final norm and head

    @model_validator(mode="after")
    def _covers(self) -> Self:
        expected = 0
        for item in self.items:
            if item.start != expected:
                raise ValueError(
                    f"items that cover layers 0 to {self.layers - 1} exactly, in order: "
                    f"layer {min(item.start, expected)} is "
                    f"{'missing' if item.start > expected else 'covered twice'}"
                )
            expected = item.stop
        if expected != self.layers:
            raise ValueError(
                f"items that cover layers 0 to {self.layers - 1} exactly: they end at {expected}"
            )
        return self

    @classmethod
    def unchanged(cls, model_sha256: str, layers: int, context_tokens: int) -> Self:
        """Every layer kept: the plan of the control arm."""
        return cls(
            model_sha256=model_sha256,
            layers=layers,
            context_tokens=context_tokens,
            selector="control",
            items=(PlanItem(start=0, stop=layers, strategy="keep", reason="control arm"),),
        )

    def summary(self) -> dict[str, str]:
        """The strategy per layer index, as JSON output shows the plan."""
        return {
            str(layer): item.strategy
            for item in self.items
            for layer in range(item.start, item.stop)
        }


class RepairRound(Contract):
    """A rejected plan and its repair."""

    plan: ConversionPlan
    candidate_sha256: str
    failed_checks: tuple[str, ...]
    given_back: tuple[int, ...] = ()  # layers that the next plan keeps; empty if there is none
    stopped: str = ""  # why there is no next plan
