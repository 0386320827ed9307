"""Apply a gate policy to an evaluation; a rule without evidence fails."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from fnmatch import fnmatchcase
from typing import NamedTuple
from zlib import crc32

from layerwright.tasks.context import Context
from layerwright.tasks.contracts.evaluation import Arm, EvalReport, Measurement
from layerwright.tasks.contracts.gate import Check, GateDecision, Waiver
from layerwright.tasks.contracts.items import ItemResult, read_items
from layerwright.tasks.gate import comparison as compare
from layerwright.tasks.gate.checks import make_check, missing_reason, no_evidence_check
from layerwright.tasks.gate.comparison import Comparison, holm
from layerwright.tasks.gate.pairs import ItemTable, NoEvidence
from layerwright.tasks.gate.tiers import Application, coverage_checks, matching_metrics, tier_rules
from layerwright.tasks.recipe.gate import GatePolicy, GateRule


class Finding(NamedTuple):
    """The result of one rule on one metric: a comparison, or the problem that prevented it."""

    rule: GateRule
    metric: str
    comparison: Comparison | None
    problem: str = ""


def decide_now(report: EvalReport, policy: GatePolicy, ctx: Context) -> GateDecision:
    """The gate step: `decide` at the current time."""
    items = read_items(ctx.store.open_tree(report.items.sha256)) if report.items else ()
    return decide(report, items, policy, datetime.now(UTC), ctx.seed)


def decide(
    report: EvalReport,
    items: Iterable[ItemResult],
    policy: GatePolicy,
    now: datetime,
    seed: int = 0,
) -> GateDecision:
    """Apply the tier and every rule to all metrics that they match.

    The candidate is accepted if every check of severity ``fail`` passed or is waived, and at least
    one passed without a waiver. A value exactly at its limit passes. A rule without evidence fails.

    Two error rates are at most ``policy.significance``: the share of candidates as good as the
    other arm that a decision calls significantly worse (p-values are adjusted by Holm's method
    over all tests), and the share of candidates exactly at a limit that pass its bound. A check
    that neither passes nor shows a significant loss is inconclusive.

    Args:
        now: with time zone. The decision expires ``policy.expires_after_days`` later, or with the
            first waiver that it depends on.
    """
    if now.tzinfo is None:
        raise ValueError("now must have a time zone")
    gate = _Gate(report, ItemTable(items), policy, seed)
    applied = [Application(rule, matching_metrics(report, rule.metric)) for rule in policy.rules]
    if policy.tier:
        applied = [*tier_rules(policy.tier, report, policy.significance), *applied]
    findings = [finding for application in applied for finding in gate.apply(application)]
    checks = [*(coverage_checks(report) if policy.tier else ()), *_judge(findings, policy)]
    checks = [_waived(check, policy.waivers, now) for check in checks]
    decisive = [c for c in checks if c.severity == "fail" and c.passed and c.value is not None]
    if not decisive and not any(check.rejects for check in checks):
        checks.append(no_evidence_check(checks))
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
    """The evaluation that rules are applied to, and how."""

    report: EvalReport
    table: ItemTable
    policy: GatePolicy
    seed: int

    def apply(self, application: Application) -> Iterator[Finding]:
        rule, metrics = application.rule, application.metrics
        if not metrics:
            yield Finding(rule, rule.metric, None, "no measurement matches this name")
            return
        champion = self.report.champion
        if rule.arm == "champion" and (champion is None or champion.checkpoint is None):
            # no champion is no problem: the first version of a model has none
            why = (champion.reason or "the champion was not measured") if champion else ""
            yield Finding(rule, rule.metric, None, why)
            return
        findings = [self._apply_to(metric, rule) for metric in metrics]
        if rule.across == "each":
            yield from findings
            return
        parts = [finding.comparison for finding in findings if finding.comparison]
        problem = "; ".join(f"{f.metric}: {f.problem}" for f in findings if f.problem)
        level = self.policy.significance
        mean = None if problem else compare.mean_comparison(rule, parts, level)
        yield Finding(rule, rule.metric, mean, problem)

    def _apply_to(self, metric: str, rule: GateRule) -> Finding:
        try:
            return Finding(rule, metric, self._compare(rule, metric))
        except NoEvidence as error:
            return Finding(rule, metric, None, str(error))

    def _compare(self, rule: GateRule, metric: str) -> Comparison:
        candidate = self._measured(metric, "candidate")
        other = None if rule.compare == "value" else self._measured(metric, rule.arm)
        mine, theirs = candidate.value, other.value if other else None
        assert mine is not None  # `_measured` checks it
        value = compare.figure_from_values(rule, mine, theirs, candidate.higher_is_better)
        needs_items = rule.on == "bound" or rule.compare == "p_value" or rule.slice is not None
        if not needs_items and not self.table.has(candidate):
            return Comparison(value)
        pairs = self.table.pairs(candidate, other, rule.slice)
        seed = crc32(f"gate/{self.seed}/{metric}/{rule.slice}".encode())
        if rule.slice is not None and rule.compare != "p_value":
            value = compare.figure_from_items(rule, pairs)
        if len(pairs) < self.policy.min_items:
            return Comparison(value, items=len(pairs))
        if rule.compare == "p_value":
            return compare.chance_of_loss(candidate, pairs, self.policy.significance, seed)
        return compare.compare_items(rule, value, pairs, self.policy.significance, seed)

    def _measured(self, metric: str, arm: Arm) -> Measurement:
        measurement = self.report.find(metric, arm)
        if measurement is None or measurement.value is None:
            raise NoEvidence(missing_reason(arm, measurement))
        return measurement


def _judge(findings: list[Finding], policy: GatePolicy) -> Iterator[Check]:
    """The checks of findings, with p-values adjusted over the family of all deciding tests."""
    raw = [finding.comparison.p_value if finding.comparison else None for finding in findings]
    tested = {
        index: p_value
        for index, (p_value, finding) in enumerate(zip(raw, findings, strict=True))
        if p_value is not None
        and finding.rule.severity == "fail"
        and (finding.rule.on == "bound" or finding.rule.compare == "p_value")
    }
    adjusted = dict(zip(tested, holm([*tested.values()]), strict=True))
    for index, (rule, metric, comparison, problem) in enumerate(findings):
        p_value = adjusted.get(index, raw[index])
        yield make_check(rule, metric, comparison, problem, p_value=p_value, policy=policy)


def _waived(check: Check, waivers: Iterable[Waiver], now: datetime) -> Check:
    """The check, with the first valid waiver that covers it, if it rejects and has a value."""
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
