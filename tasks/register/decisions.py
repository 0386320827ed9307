"""Write a gate's decision to the tags of a model version, and read it back."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from layerwright.tasks.contracts.evaluation import EvalReport
from layerwright.tasks.contracts.gate import GateDecision
from layerwright.tasks.errors import StepError
from layerwright.tasks.register.evidence import TAG
from layerwright.tasks.register.versions import tag

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

NONE = "none"
REQUALIFIED = "requalified_"  # prefix of the tags of a decision made by requalify


def decision_tags(decision: GateDecision, report: EvalReport) -> dict[str, str]:
    """The tags of a decision: verdict, dates, compared champion, tier, checks and waivers."""
    passed, failed = sum(c.passed for c in decision.checks), len(decision.rejecting)
    waived = [(check.metric, check.waiver) for check in decision.checks if check.waiver]
    warned = len(decision.checks) - passed - failed - len(waived)
    failures = f", {failed} failed" if failed else ""
    champion = report.champion
    waivers = [f"{m} by {w.author} until {w.expires}: {w.reason}" for m, w in waived]
    return {
        "decision": "accepted" if decision.accepted else "rejected",
        "decided_at": decision.decided_at,
        "expires_at": decision.expires_at,
        "compared_champion": champion.version if champion and champion.checkpoint else NONE,
        "gate_tier": decision.tier or NONE,
        "gate_checks": f"{passed} passed{failures}, {warned} warned, {len(waived)} waived",
        "gate_waivers": "; ".join(waivers) or NONE,
    }


@dataclass(frozen=True)
class StandingDecision:
    """The latest decision of the gate on a version, from its registration or a requalification."""

    accepted: bool
    decided_at: datetime
    expires_at: datetime
    champion: str | None  # measured in the same run; ``none`` if there was none, None if unknown
    tier: str
    waivers: str  # the waivers that the decision depends on, or ``none``
    run_id: str  # the run that made the decision


def standing_decision(version: ModelVersion) -> StandingDecision:
    """The latest decision on a version; raise StepError if it has none."""
    decisions = [_decision(version, "")]
    if tag(version, f"{REQUALIFIED}decided_at") is not None:
        decisions.append(_decision(version, REQUALIFIED))
    return max(decisions, key=lambda decision: decision.decided_at)


def _decision(version: ModelVersion, prefix: str) -> StandingDecision:
    def value(name: str) -> str:
        text = tag(version, prefix + name)
        if text is None:
            raise StepError(
                f"version {version.version} of {version.name} lacks the tag {TAG}{prefix}{name}"
            )
        return text

    return StandingDecision(
        accepted=value("decision") == "accepted",
        decided_at=datetime.fromisoformat(value("decided_at")),
        expires_at=datetime.fromisoformat(value("expires_at")),
        champion=tag(version, f"{prefix}compared_champion"),
        tier=tag(version, f"{prefix}gate_tier") or NONE,
        waivers=tag(version, f"{prefix}gate_waivers") or NONE,
        run_id=value("run_id"),
    )
