"""The gate: a report against a policy, rule by rule. What was not shown has failed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from fnmatch import fnmatchcase
from zlib import crc32

from layerwright.tasks.contracts.evaluation import EvalReport, Measurement
from layerwright.tasks.contracts.gate import Check, GateDecision, Waiver
from layerwright.tasks.contracts.items import ItemResult
from layerwright.tasks.errors import InputError
from layerwright.tasks.gate.checks import check_of, nothing_passed, unmeasured
from layerwright.tasks.gate.comparison import (
    Comparison,
    chance_of_loss,
    compare_items,
    figure_of,
    mean_of,
    point,
)
from layerwright.tasks.gate.pairs import ItemTable, NotShown
from layerwright.tasks.gate.statistics import holm
from layerwright.tasks.gate.tiers import Application, breadth, matching, rules_of
from layerwright.tasks.recipe.gate import GatePolicy, GateRule


@dataclass(frozen=True)
class Finding:
    """A rule on a metric: what was found, or why nothing was shown."""

    rule: GateRule
    metric: str
    found: Comparison | None
    problem: str = ""


def decide(
    report: EvalReport,
    items: Iterable[ItemResult],
    policy: GatePolicy,
    now: datetime,
    seed: int = 0,
) -> GateDecision:
    """Apply the tier and every rule to every metric that they match.

    Accepted if no check of severity ``fail`` failed or was inconclusive, but for those that are
    waived, and at least one passed by itself. A rule fails where its metric is missing, was not
    measured in an arm that it needs, or has an arm or items that give no evidence. A value exactly
    at its limit passes.

    That a check *failed* on items is said only where its p-value, by Holm over all of them, is
    below ``policy.significance``: of candidates as good as their arm, no more than that share is
    shown to be worse. A candidate whose truth is at a limit passes a bound that often at most.

    Args:
        items: of the report (``EvalReport.items``).
        now: aware of its time zone; the decision expires ``policy.expires_after_days`` later, or
            with the first waiver that it rests on.
        seed: of the bootstrap.

    Raises:
        InputError: a limit that is no finite number.
    """
    if now.tzinfo is None:
        raise ValueError("now must be aware of its time zone")
    for rule in policy.rules:
        if not math.isfinite(rule.limit):
            raise InputError(
                f"the limit of {rule.metric!r} is {rule.limit}",
                where="gate.rules",
                expected="a finite number",
            )
    gate = _Gate(report, ItemTable(items), policy, seed)
    applied = [Application(rule, matching(report, rule.metric)) for rule in policy.rules]
    if policy.tier:
        applied = [*rules_of(policy.tier, report, policy.significance), *applied]
    findings = [finding for one in applied for finding in gate.apply(one)]
    checks = [*(breadth(report) if policy.tier else ()), *_judge(findings, policy)]
    checks = [_waived(check, policy.waivers, now) for check in checks]
    decisive = [c for c in checks if c.severity == "fail" and c.passed and c.value is not None]
    if not decisive and not any(check.rejects for check in checks):
        checks.append(nothing_passed(checks))
    return GateDecision(
        accepted=not any(check.rejects for check in checks),
        checks=tuple(checks),
        candidate_sha256=report.candidate_sha256,
        decided_at=_timestamp(now),
        expires_at=_timestamp(_expiry(checks, policy, now)),
        tier=policy.tier,
        significance=policy.significance,
        waivers=policy.waivers,
    )


@dataclass(frozen=True)
class _Gate:
    """What every rule is applied to."""

    report: EvalReport
    table: ItemTable
    policy: GatePolicy
    seed: int

    def apply(self, one: Application) -> Iterator[Finding]:
        rule, metrics = one.rule, one.metrics
        if not metrics:
            problem = "no measurement has this name: nothing was shown"
            yield Finding(rule, rule.metric, None, problem)
            return
        champion = self.report.champion
        if rule.arm == "champion" and (champion is None or champion.checkpoint is None):
            # without a champion there is nothing to compare with, and nothing wrong
            why = (champion.reason or "the champion was not measured") if champion else ""
            yield Finding(rule, rule.metric, None, why)
            return
        found = [self._find(rule, metric) for metric in metrics]
        if rule.across == "each":
            yield from found
            return
        parts = [finding.found for finding in found if finding.found]
        problem = "; ".join(f"{f.metric}: {f.problem}" for f in found if f.problem)
        mean = mean_of(rule, parts, self.policy.significance) if not problem else None
        yield Finding(rule, rule.metric, mean, problem)

    def _find(self, rule: GateRule, metric: str) -> Finding:
        try:
            return Finding(rule, metric, self._compare(rule, metric))
        except NotShown as nothing:
            return Finding(rule, metric, None, str(nothing))

    def _compare(self, rule: GateRule, metric: str) -> Comparison:
        candidate = self._measured(metric, "candidate")
        other = None if rule.compare == "value" else self._measured(metric, rule.arm)
        value = point(rule, candidate, other)
        needs_items = rule.on == "bound" or rule.compare == "p_value" or rule.slice is not None
        if not needs_items and not self.table.has(candidate):
            return Comparison(value)
        pairs = self.table.pairs(candidate, other, rule.slice)
        seed = crc32(f"gate/{self.seed}/{metric}/{rule.slice}".encode())
        if rule.slice is not None and rule.compare != "p_value":
            value = figure_of(rule, pairs)
        if len(pairs) < self.policy.min_items:
            return Comparison(value, items=len(pairs))
        if rule.compare == "p_value":
            return chance_of_loss(candidate, pairs, self.policy.significance, seed)
        return compare_items(rule, value, pairs, self.policy.significance, seed)

    def _measured(self, metric: str, arm: str) -> Measurement:
        found = self.report.find(metric, arm)  # type: ignore[arg-type]
        if found is None or found.value is None:
            raise NotShown(unmeasured(arm, found))
        return found


def _judge(findings: list[Finding], policy: GatePolicy) -> Iterator[Check]:
    """Findings as checks, with the p-values of the family adjusted."""
    family = [
        index
        for index, finding in enumerate(findings)
        if finding.rule.severity == "fail"
        and (finding.rule.on == "bound" or finding.rule.compare == "p_value")
        and finding.found is not None
        and finding.found.p_value is not None
    ]
    raw = [finding.found.p_value if finding.found else None for finding in findings]
    adjusted = dict(zip(family, holm([raw[i] or 0.0 for i in family]), strict=True))
    for index, finding in enumerate(findings):
        yield check_of(
            finding.rule,
            finding.metric,
            finding.found,
            finding.problem,
            p_value=adjusted.get(index, raw[index]),
            policy=policy,
        )


def _waived(check: Check, waivers: Iterable[Waiver], now: datetime) -> Check:
    """The check, forgiven where a waiver in force covers it and its figure was measured."""
    if not check.rejects or check.value is None:
        return check
    today = now.astimezone(UTC).date()
    for waiver in waivers:
        if today <= waiver.expires and fnmatchcase(check.metric, waiver.metric):
            return check.model_copy(update={"waiver": waiver})
    return check


def _expiry(checks: Iterable[Check], policy: GatePolicy, now: datetime) -> datetime:
    used = (check.waiver.expires for check in checks if check.waiver)
    ends = (datetime.combine(day, time.max, UTC) for day in used)
    return min((now + timedelta(days=policy.expires_after_days), *ends))


def _timestamp(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds")
