"""Everything that the page shows, as one frozen document: the page is a function of it alone."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from tasks.contracts import (
    CheckpointRef,
    Contract,
    ConversionPlan,
    EvalReport,
    GateDecision,
    ModelProfile,
    ModelRef,
    Registration,
    TextRef,
)
from tasks.training_contracts import FinetuneReport


class ReportBundle(Contract):
    """One finished convert run.

    ``started_at`` and ``finished_at`` are ISO 8601. ``seconds`` and ``cache_hits`` are per step.
    ``environment`` holds versions and the device, by name. ``predicted_kv_bytes`` is the plan's
    prediction for the whole model by context length (batch 1); at the plan's own
    ``context_tokens`` it need not be given, the items carry it.
    """

    run_id: str
    recipe_name: str
    recipe_yaml: str
    started_at: str
    finished_at: str
    model: ModelRef
    texts: dict[str, TextRef]
    profile: ModelProfile
    plan: ConversionPlan
    converted: CheckpointRef
    finetune: FinetuneReport | None = None
    evaluation: EvalReport
    gate: GateDecision
    registration: Registration | None = None
    seconds: dict[str, float] = {}
    cache_hits: tuple[str, ...] = ()
    environment: dict[str, str] = {}
    predicted_kv_bytes: dict[int, int] = {}

    @model_validator(mode="after")
    def _nothing_rejected_is_registered(self) -> ReportBundle:
        if self.registration is not None and not self.gate.accepted:
            raise ValueError("no registration where the gate rejected the candidate")
        return self

    @property
    def verdict(self) -> Literal["accepted", "rejected"]:
        return "accepted" if self.gate.accepted else "rejected"

    @property
    def checkpoint(self) -> CheckpointRef:
        """The candidate: the tuned checkpoint, or the converted one where nothing was tuned."""
        return self.finetune.checkpoint if self.finetune else self.converted

    def predicted_kv(self, tokens: int) -> int | None:
        """The plan's KV bytes of the whole model at ``tokens``, batch 1, if it says so."""
        if tokens in self.predicted_kv_bytes:
            return self.predicted_kv_bytes[tokens]
        if tokens != self.plan.context_tokens:
            return None
        parts = [item.predicted_kv_bytes for item in self.plan.items]
        return None if None in parts else sum(part for part in parts if part is not None)
