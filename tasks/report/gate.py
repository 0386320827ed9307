"""The gate's decision on the pages: the status of each check, the method, the waivers."""

from datetime import datetime
from typing import NamedTuple

from layerwright.tasks.contracts.evaluation import ARMS, EvalReport
from layerwright.tasks.contracts.gate import Check, GateDecision, Waiver


class Status(NamedTuple):
    """The status of a check: word, sign and CSS class."""

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
    if check.inconclusive:
        return Status("Inconclusive", "?", "bad")
    return Status("Failed", "✕", "bad")


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
    """How the gate judged: the tier, and what bounds, failures and detectable changes mean."""
    text = f"Judged by the tier {decision.tier}. " if decision.tier else ""
    if not any(check.items for check in decision.checks):
        return text.rstrip()
    level = f"{100 * (1 - decision.significance):g} %"
    text += (
        f"Bounds are one-sided {level} confidence bounds. Below the number of items stands the "
        "smallest change that this number detects with a probability of 80 %."
    )
    if any(check.p_value is not None for check in decision.checks):
        text += (
            " A check on a bound fails if the items show a significant loss. If they show neither "
            "that the limit holds nor that it is broken, the check is inconclusive, which also "
            "rejects. Significance is adjusted for all checks together (Holm): a candidate as good "
            f"as the base fails one of them with a probability of at most "
            f"{100 * decision.significance:g} %."
        )
    return text


class WaiverRow(NamedTuple):
    """One waiver of the policy. ``state``: used, expired or not needed."""

    metric: str
    author: str
    expires: str
    reason: str
    state: str


def waiver_rows(decision: GateDecision) -> list[WaiverRow]:
    """All waivers of the policy, and whether the decision uses them."""
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


def gate_section(report: EvalReport, decision: GateDecision) -> dict[str, object]:
    """The contents of a page's sections on the gate and on the arms of its evaluation."""
    measured = {m.arm for m in report.measurements}
    return {
        "arms": [arm for arm in ARMS if arm in measured],
        "check_status": status,
        "judged": judged(decision),
        "waivers": waiver_rows(decision),
        "champion": champion(report),
    }


def champion(report: EvalReport) -> str:
    """A sentence on the champion arm, or on why it was not measured; empty without champion."""
    version = report.champion
    if version is None:
        return ""
    if version.checkpoint is None:
        return version.reason[:1].upper() + version.reason[1:] + "."
    return f"The champion is registered version {version.version}, measured in the same run."
