"""Decide on a stage of a roll-out: advance, roll back, or inconclusive.

Every figure comes from pairs of answers to the same requests. The challenger advances if all limits
hold at the policy's ``passing_level``. It is rolled back if a limit is broken at the
``failing_level``. Otherwise the look is inconclusive.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from zlib import crc32

import numpy as np

from layerwright.tasks.contracts.gate import Comparing
from layerwright.tasks.contracts.rollout import Answer, LimitCheck, Served, StageDecision, Verdict
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
    """The decision on all requests of a stage so far.

    Args:
        look: number of this look, from 1.
        seed: of the bootstrap.
    """
    checks = tuple(_check(limit, served, policy, seed) for limit in policy.limits)
    broken = [check for check in checks if check.verdict == "outside"]
    undecided = [check for check in checks if check.verdict == "open"]
    verdict: Verdict = "roll back" if broken else "inconclusive" if undecided else "advance"
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
        reason="; ".join(_reason(check) for check in broken or undecided),
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
        if figure in QUANTILES:
            quantile = QUANTILES[figure]
            compared = _compare_quantiles(rule, pairs, quantile, policy.passing_level, stream)
        else:
            value = figure_from_items(rule, pairs)
            compared = compare_items(rule, value, pairs, policy.passing_level, stream)
    except NoEvidence as error:
        return LimitCheck(figure=figure, limit=limit.limit, verdict="open", reason=str(error))
    inside = _inside(rule, compared.bound if limit.on == "bound" else compared.value)
    broken = not _inside(rule, compared.value) and (
        compared.p_value is not None and compared.p_value < policy.failing_level
    )
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
    if value is None:
        return False
    return value >= rule.limit if rule.is_floor else value <= rule.limit


def _pairs(figure: str, served: Sequence[Served], policy: RolloutPolicy) -> Pairs:
    """The figure's items of both sides, one per request that both sides answered.

    Latency, cost and likelihood use only requests that neither side failed. If only the challenger
    failed, its match and its agreement are 0.
    """
    both = [(record, *record.pair) for record in served if record.pair]
    if figure == "errors":
        return _paired(
            [_answered(new) for _, _, new in both], [_answered(old) for _, old, _ in both]
        )
    if figure == "match":
        rows = [(old.match, new.match) for _, old, new in both]
        known = [(old, new) for old, new in rows if old is not None and new is not None]
        right_or_wrong = policy.match != "rouge_l"
        return _paired([new for _, new in known], [old for old, _ in known], right_or_wrong)
    if figure == "agreement":
        agreement = [record.agreement or 0.0 for record, old, _ in both if old.error is None]
        return _paired(agreement, None, right_or_wrong=False)
    answered = [pair for pair in both if not pair[1].error and not pair[2].error]
    if figure == "likelihood":
        return _paired(
            [record.challenger_nll for record, _, _ in answered],
            [record.champion_nll for record, _, _ in answered],
            right_or_wrong=False,
            weights=[old.new_tokens for _, old, _ in answered],
        )
    unit = "cost" if figure == "cost" else "seconds"
    return _paired(
        [getattr(new, unit) for _, _, new in answered],
        [getattr(old, unit) for _, old, _ in answered],
        right_or_wrong=False,
    )


def _answered(answer: Answer) -> float:
    return float(answer.error is None)


def _paired(
    challenger: Sequence[float | None],
    champion: Sequence[float | None] | None,
    right_or_wrong: bool = True,
    weights: Sequence[float] | None = None,
) -> Pairs:
    return Pairs(
        np.array(challenger, dtype=np.float64),
        None if champion is None else np.array(champion, dtype=np.float64),
        np.ones(len(challenger)) if weights is None else np.array(weights, dtype=np.float64),
        "mean",
        right_or_wrong,
    )


def _compare_quantiles(
    rule: GateRule, pairs: Pairs, quantile: float, level: float, seed: int
) -> Comparison:
    """The ratio of a quantile of both sides, with bound and p-value by the paired bootstrap."""

    def ratio(mine: np.ndarray, theirs: np.ndarray, axis: int = -1) -> np.ndarray:
        return np.quantile(mine, quantile, axis) / np.quantile(theirs, quantile, axis)

    assert pairs.other is not None
    sides = (pairs.candidate, pairs.other)
    draws = resample(sides, ratio, seed).bootstrap_distribution
    return Comparison(
        float(ratio(*sides)),
        float(np.quantile(draws, 1 - level)),
        bootstrap_p_value(draws, rule),
        len(pairs),
    )
