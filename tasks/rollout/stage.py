"""One look at a stage of a roll-out: does the challenger advance, go back, or is that open?

Every figure comes from pairs of answers to the same requests. A stage passes when each limit holds
at the policy's ``passing_level``; one limit that is broken at its ``failing_level`` rolls back;
else the look is inconclusive.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from zlib import crc32

import numpy as np

from layerwright.tasks.contracts.gate import Comparing
from layerwright.tasks.contracts.rollout import Answer, LimitCheck, Served, StageDecision, Verdict
from layerwright.tasks.gate.comparison import Comparison, beyond, compare_items, figure_of
from layerwright.tasks.gate.pairs import NotShown, Pairs
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
    """The verdict on everything that a stage has measured so far.

    Args:
        seed: of the bootstrap.
    """
    checks = tuple(_check(limit, served, policy, seed) for limit in policy.limits)
    broken = [check for check in checks if check.verdict == "outside"]
    unclear = [check for check in checks if check.verdict == "open"]
    verdict: Verdict = "roll back" if broken else "inconclusive" if unclear else "advance"
    return StageDecision(
        stage=stage.name,
        share=stage.share,
        look=look,
        requests=len(served),
        by_challenger=sum(one.side == "challenger" for one in served),
        pairs=sum(one.pair is not None for one in served),
        verdict=verdict,
        checks=checks,
        decided_at=now.isoformat(timespec="seconds"),
        reason="; ".join(_told(check) for check in broken or unclear),
    )


def _told(check: LimitCheck) -> str:
    if check.value is None:
        return f"{check.figure}: {check.reason}"
    side = "breaks" if check.verdict == "outside" else "is not shown to keep"
    return (
        f"{check.figure} {check.value:.4g} {side} the limit {check.limit:g} ({check.items} pairs)"
    )


def _check(
    limit: RolloutLimit, served: Sequence[Served], policy: RolloutPolicy, seed: int
) -> LimitCheck:
    figure = limit.figure
    stream = crc32(f"rollout/{seed}/{figure}".encode())
    # these two are losses of a share: the gate's rule is on what is left of it
    sign = -1.0 if figure in ("errors", "match") else 1.0
    rule = _rule(limit, sign)
    try:
        pairs = _pairs(figure, served, policy)
        if len(pairs) < policy.min_items:
            raise NotShown(f"{len(pairs)} pairs, fewer than {policy.min_items}")
        if figure in QUANTILES:
            found = _compare_quantiles(rule, pairs, QUANTILES[figure], policy.passing_level, stream)
        else:
            value = figure_of(rule, pairs)
            found = compare_items(rule, value, pairs, policy.passing_level, stream)
    except NotShown as nothing:
        return LimitCheck(figure=figure, limit=limit.limit, verdict="open", reason=str(nothing))
    inside = _inside(rule, found.bound if limit.on == "bound" else found.value)
    broken = not _inside(rule, found.value) and (
        found.p_value is not None and found.p_value < policy.failing_level
    )
    return LimitCheck(
        figure=figure,
        limit=limit.limit,
        value=sign * found.value + 0.0,  # no minus zero
        bound=None if found.bound is None else sign * found.bound + 0.0,
        p_value=found.p_value,
        items=found.items,
        verdict="outside" if broken else "inside" if inside else "open",
    )


def _rule(limit: RolloutLimit, sign: float) -> GateRule:
    figure = limit.figure
    name, bar = f"rollout.{figure}", sign * limit.limit
    if figure == "agreement":
        return GateRule(metric=name, compare="value", min=bar)
    if figure in ("errors", "match"):
        return GateRule(metric=name, arm="champion", compare="difference", min=bar)
    kind: Comparing = "difference" if figure == "likelihood" else "ratio"
    return GateRule(metric=name, arm="champion", compare=kind, max=bar)


def _inside(rule: GateRule, value: float | None) -> bool:
    if value is None:
        return False
    return value >= rule.limit if rule.is_floor else value <= rule.limit


def _pairs(figure: str, served: Sequence[Served], policy: RolloutPolicy) -> Pairs:
    """The challenger's items beside the champion's.

    Answers of both sides alone have a latency, a cost and a likelihood. A challenger that fails
    where the champion answers matches and agrees with nothing.
    """
    both = [(one, *one.pair) for one in served if one.pair]
    if figure == "errors":
        return _paired([_answered(new) for _, _, new in both], [_answered(o) for _, o, _ in both])
    if figure == "match":
        rows = [(old.match, new.match) for _, old, new in both]
        known = [(old, new) for old, new in rows if old is not None and new is not None]
        right_or_wrong = policy.match != "rouge_l"
        return _paired([new for _, new in known], [old for old, _ in known], right_or_wrong)
    if figure == "agreement":
        agreed = [one.agreement or 0.0 for one, old, _ in both if old.error is None]
        return _paired(agreed, None, right_or_wrong=False)
    whole = [(one, old, new) for one, old, new in both if not old.error and not new.error]
    if figure == "likelihood":
        return _paired(
            [one.challenger_nll for one, _, _ in whole],
            [one.champion_nll for one, _, _ in whole],
            right_or_wrong=False,
            weights=[old.new_tokens for _, old, _ in whole],
        )
    unit = "cost" if figure == "cost" else "seconds"
    return _paired(
        [getattr(new, unit) for _, _, new in whole],
        [getattr(old, unit) for _, old, _ in whole],
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
    """The ratio of two quantiles, with its bound and p-value by the paired bootstrap."""

    def ratio(mine: np.ndarray, theirs: np.ndarray, axis: int = -1) -> np.ndarray:
        return np.quantile(mine, quantile, axis) / np.quantile(theirs, quantile, axis)

    assert pairs.other is not None
    sides = (pairs.candidate, pairs.other)
    draws = resample(sides, ratio, seed).bootstrap_distribution
    return Comparison(
        float(ratio(*sides)),
        float(np.quantile(draws, 1 - level)),
        beyond(draws, rule),
        len(pairs),
    )
