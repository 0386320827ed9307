"""Decide on a stage of a roll-out: advance, roll back, or inconclusive; and give the next state.

Every figure comes from pairs of answers to the same requests. The challenger advances if all limits
hold at the policy's ``passing_level``. It is rolled back if a limit is broken at the
``failing_level``. Otherwise the look is inconclusive.
"""

from collections.abc import Sequence
from datetime import datetime
from zlib import crc32

import numpy as np

from layerwright.tasks.contracts.base import identity
from layerwright.tasks.contracts.gate import Comparing
from layerwright.tasks.contracts.rollout import (
    LimitCheck,
    Request,
    RolloutState,
    Served,
    StageDecision,
    StoppedRollout,
    Verdict,
)
from layerwright.tasks.gate.comparison import (
    Comparison,
    bootstrap_p_value,
    compare_items,
    figure_from_items,
)
from layerwright.tasks.gate.pairs import NoEvidence, Pairs
from layerwright.tasks.recipe.gate import GateRule
from layerwright.tasks.recipe.rollout import RolloutLimit, RolloutPolicy, RolloutStage
from layerwright.tasks.resampling import resample

QUANTILES = {"latency_p50": 0.5, "latency_p95": 0.95}


def judge_stage(
    served: Sequence[Served],
    stage: RolloutStage,
    look: int,
    policy: RolloutPolicy,
    *,
    now: datetime,
    seed: int = 0,
) -> StageDecision:
    """The decision on all requests of a stage so far, at a look, counted from 1."""
    checks = tuple(_check(limit, served, policy, seed) for limit in policy.limits)
    broken = [check for check in checks if check.verdict == "outside"]
    undecided = [check for check in checks if check.verdict == "open"]
    verdict: Verdict = "roll back" if broken else "inconclusive" if undecided else "advance"
    reason = "; ".join(_reason(check) for check in broken or undecided)
    return _decision(served, stage, look, now, verdict, reason, checks)


def log_ended(
    served: Sequence[Served], stage: RolloutStage, look: int, *, now: datetime
) -> StageDecision:
    """The decision if the log has fewer requests than the look needs: inconclusive, without a test.

    A test on the available requests would be an additional look, for which the significance level
    leaves no room.
    """
    pairs = sum(record.pair is not None for record in served)
    wanted = stage.requests * look
    reason = f"the log has too few requests: {pairs} of {wanted} pairs of answers"
    return _decision(served, stage, look, now, "inconclusive", reason)


def _decision(
    served: Sequence[Served],
    stage: RolloutStage,
    look: int,
    now: datetime,
    verdict: Verdict,
    reason: str,
    checks: tuple[LimitCheck, ...] = (),
) -> StageDecision:
    return StageDecision(
        stage=stage.name,
        share=stage.share,
        look=look,
        requests=len(served),
        by_challenger=sum(record.side == "challenger" for record in served),
        pairs=sum(record.pair is not None for record in served),
        verdict=verdict,
        checks=checks,
        decided_at=now.isoformat(timespec="seconds"),
        reason=reason,
    )


def _reason(check: LimitCheck) -> str:
    if check.value is None:
        return f"{check.figure}: {check.reason}"
    verdict = "breaks" if check.verdict == "outside" else "is inconclusive for"
    value = f"{check.figure} {check.value:.4g}"
    return f"{value} {verdict} the limit {check.limit:g} ({check.items} pairs)"


def _check(
    limit: RolloutLimit, served: Sequence[Served], policy: RolloutPolicy, seed: int
) -> LimitCheck:
    figure = limit.figure
    stream = crc32(f"rollout/{seed}/{figure}".encode())
    # these two limits bound a loss; the gate's rule bounds the negative difference from below
    sign = -1.0 if figure in ("errors", "match") else 1.0
    rule = _rule(limit, sign)
    try:
        pairs = _pairs(figure, served, policy)
        if len(pairs) < policy.min_items:
            raise NoEvidence(f"too few pairs: {len(pairs)}, at least {policy.min_items} are needed")
        level, quantile = policy.passing_level, QUANTILES.get(figure)
        if quantile:
            compared = _compare_quantiles(rule, pairs, quantile, level, stream)
        else:
            value = figure_from_items(rule, pairs)
            compared = compare_items(rule, value, pairs, level, stream)
    except NoEvidence as error:
        return LimitCheck(figure=figure, limit=limit.limit, verdict="open", reason=str(error))
    inside = _inside(rule, compared.bound if limit.on == "bound" else compared.value)
    refuted = compared.p_value is not None and compared.p_value < policy.failing_level
    broken = refuted and not _inside(rule, compared.value)
    return LimitCheck(
        figure=figure,
        limit=limit.limit,
        value=sign * compared.value + 0.0,  # + 0.0 turns -0.0 into 0.0
        bound=None if compared.bound is None else sign * compared.bound + 0.0,
        p_value=compared.p_value,
        items=compared.items,
        verdict="outside" if broken else "inside" if inside else "open",
    )


def _rule(limit: RolloutLimit, sign: float) -> GateRule:
    """The limit as a rule of the gate, which has the statistics."""
    figure = limit.figure
    name, threshold = f"rollout.{figure}", sign * limit.limit
    if figure == "agreement":
        return GateRule(metric=name, compare="value", min=threshold)
    if figure in ("errors", "match"):
        return GateRule(metric=name, arm="champion", compare="difference", min=threshold)
    kind: Comparing = "difference" if figure == "likelihood" else "ratio"
    return GateRule(metric=name, arm="champion", compare=kind, max=threshold)


def _inside(rule: GateRule, value: float | None) -> bool:
    sign = 1 if rule.is_floor else -1
    return value is not None and sign * value >= sign * rule.limit


def _pairs(figure: str, served: Sequence[Served], policy: RolloutPolicy) -> Pairs:
    """The figure's items of both sides, one per request that both sides answered.

    Latency, cost and likelihood use only requests that neither side failed. If only the challenger
    failed, its match and its agreement are 0.
    """
    both = [(record, *record.pair) for record in served if record.pair]
    answered = [row for row in both if not row[1].error and not row[2].error]
    rows: list[tuple[float | None, float | None]]  # challenger's, champion's
    if figure == "errors":
        rows = [(new.error is None, old.error is None) for _, old, new in both]
    elif figure == "match":
        matches = [(new.match, old.match) for _, old, new in both]
        rows = [row for row in matches if None not in row]
    elif figure == "agreement":
        rows = [(record.agreement or 0.0, None) for record, old, _ in both if old.error is None]
    elif figure == "likelihood":
        rows = [(record.challenger_nll, record.champion_nll) for record, _, _ in answered]
    else:
        unit = "cost" if figure == "cost" else "seconds"
        rows = [(getattr(new, unit), getattr(old, unit)) for _, old, new in answered]
    challenger, champion = np.array(rows, dtype=np.float64).reshape(-1, 2).T
    weights = np.ones(len(rows))
    if figure == "likelihood":
        weights = np.array([old.new_tokens for _, old, _ in answered], dtype=np.float64)
    binary = figure == "errors" or (figure == "match" and policy.match != "rouge_l")
    other = None if figure == "agreement" else champion
    return Pairs(challenger, other, weights, "mean", binary)


def _compare_quantiles(
    rule: GateRule, pairs: Pairs, quantile: float, level: float, seed: int
) -> Comparison:
    """The ratio of a quantile of both sides, with bound and p-value by the paired bootstrap."""

    def ratio(mine: np.ndarray, theirs: np.ndarray, axis: int = -1) -> np.ndarray:
        return np.quantile(mine, quantile, axis) / np.quantile(theirs, quantile, axis)

    assert pairs.other is not None
    sides = (pairs.candidate, pairs.other)
    draws = resample(sides, ratio, seed).bootstrap_distribution
    bound, p_value = float(np.quantile(draws, 1 - level)), bootstrap_p_value(draws, rule)
    return Comparison(float(ratio(*sides)), bound, p_value, len(pairs))


def next_state(
    state: RolloutState,
    decision: StageDecision,
    policy: RolloutPolicy,
    read: Sequence[Request],
    now: datetime,
) -> RolloutState:
    """The state after a decision on the current stage.

    Args:
        read: the requests of the log up to the last one that this stage used.
    """
    if decision.verdict == "roll back":
        return rolled_back(state, decision.reason, now)
    if decision.verdict == "advance":
        stage = state.stage + 1
        update = {"stage": stage, "look": 1, "begin": len(read), "reason": ""}
        update["log_sha256"] = identity(list(read))
        if stage < len(policy.stages):
            share, since = policy.stages[stage].share, now.isoformat(timespec="seconds")
            update |= {"share": share, "since": since}
        return state.model_copy(update=update)
    reason = {"reason": decision.reason[:1000]}
    if not decision.checks:
        return state.model_copy(update={"status": "inconclusive", **reason})
    if state.look < policy.looks:
        return state.model_copy(update={"look": state.look + 1, **reason})
    if policy.undecided == "roll back":
        why = f"inconclusive after {policy.looks} looks: {decision.reason}"
        return rolled_back(state, why, now)
    return state.model_copy(update={"status": "inconclusive", "look": state.look + 1, **reason})


def rolled_back(state: RolloutState, reason: str, now: datetime) -> RolloutState:
    """The state after a rollback: the challenger gets no traffic."""
    since = now.isoformat(timespec="seconds")
    update = {"status": "rolled back", "share": 0.0, "since": since, "reason": reason[:1000]}
    return state.model_copy(update=update)


def stopped(state: RolloutState, policy: RolloutPolicy) -> StoppedRollout:
    """The record of a roll-out that was rolled back, for the challenger's version."""
    at = min(state.stage, len(policy.stages) - 1)
    return StoppedRollout(at=state.since, stage=policy.stages[at].name, reason=state.reason)
