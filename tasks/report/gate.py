"""The gate's decision for reading: how each check came out, how it was judged, what was waived."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from layerwright.tasks.contracts.evaluation import EvalReport
from layerwright.tasks.contracts.gate import Check, GateDecision, Waiver


@dataclass(frozen=True)
class Status:
    """Word, sign and CSS class of a check's outcome."""

    word: str
    sign: str
    kind: str


def status(check: Check) -> Status:
    if check.passed:
        return Status("Passed", "✓", "good")
    if check.waiver:
        return Status("Waived", "~", "warn")
    if check.severity == "warn":
        return Status("Warning", "!", "warn")
    return (
        Status("Inconclusive", "?", "bad") if check.inconclusive else Status("Failed", "✕", "bad")
    )


def rejection(decision: GateDecision) -> str:
    """``2 checks failed, 1 is inconclusive``."""
    failed = sum(not check.inconclusive for check in decision.rejecting)
    open_ = len(decision.rejecting) - failed
    parts = []
    if failed:
        parts.append(f"{failed} {'check' if failed == 1 else 'checks'} failed")
    if open_:
        noun = "" if failed else " check" if open_ == 1 else " checks"
        parts.append(f"{open_}{noun} {'is' if open_ == 1 else 'are'} inconclusive")
    return ", ".join(parts) or "the gate had no check to pass"


def judged(decision: GateDecision) -> str:
    """By which tier, and what the bounds, the failures and the figures under the items mean."""
    said = f"Judged by the tier {decision.tier}. " if decision.tier else ""
    if not any(check.items for check in decision.checks):
        return said.rstrip()
    sure = f"{100 * (1 - decision.significance):g} %"
    said += (
        f"Bounds are one-sided, at {sure}; the change that the items show is one that so many find "
        "4 times of 5."
    )
    if any(check.p_value is not None for check in decision.checks):
        said += (
            f" A rule on a bound fails where the items show a loss (Holm over all of them: at most "
            f"{100 * decision.significance:g} % of equal candidates), and is inconclusive, which "
            "rejects as well, where they show neither."
        )
    return said


@dataclass(frozen=True)
class WaiverRow:
    metric: str
    author: str
    expires: str
    reason: str
    state: str


def waiver_rows(decision: GateDecision) -> list[WaiverRow]:
    """Every waiver of the policy, and whether the decision rests on it."""
    return [
        WaiverRow(w.metric, w.author, w.expires.isoformat(), w.reason, _state(w, decision))
        for w in decision.waivers
    ]


def _state(waiver: Waiver, decision: GateDecision) -> str:
    used = [check.metric for check in decision.checks if check.waiver == waiver]
    if used:
        return f"used: {', '.join(dict.fromkeys(used))}"
    expired = datetime.fromisoformat(decision.decided_at).date() > waiver.expires
    return "expired" if expired else "not needed"


def champion(report: EvalReport) -> str:
    """What the champion's arm is, or why there is none; empty where there is no champion."""
    found = report.champion
    if found is None:
        return ""
    if found.checkpoint is None:
        return found.reason[:1].upper() + found.reason[1:] + "."
    return f"The champion is version {found.version} of the registry, measured in the same run."
