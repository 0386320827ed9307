"""One look at a stage: what advances, what goes back, what stays open."""

from datetime import UTC, datetime

import numpy as np
import pytest

from layerwright.tasks.contracts.rollout import Answer, Served
from layerwright.tasks.recipe.registry import ApprovalPolicy
from layerwright.tasks.recipe.rollout import RolloutLimit, RolloutPolicy, RolloutStage
from layerwright.tasks.rollout.stage import judge_stage

NOW = datetime(2026, 11, 25, tzinfo=UTC)
STAGE = RolloutStage(share=0.25, requests=20)
APPROVAL = ApprovalPolicy(author="team", reason="staged")
ERRORS = RolloutLimit(figure="errors", limit=0.1, on="value")


def policy(*limits: RolloutLimit, **changes) -> RolloutPolicy:
    return RolloutPolicy(approval=APPROVAL, limits=(ERRORS, *limits), **changes)


def pairs(count: int = 200, seed: int = 0, slower: float = 1.0, failing: float = 0.0, **quality):
    """Requests of both sides: latencies that share their request's length, and quality."""
    draw = np.random.default_rng(seed)
    found = []
    for index in range(count):
        seconds = draw.lognormal(0, 0.5)
        fails = draw.random() < failing
        new = Answer(
            text="" if fails else "b",
            new_tokens=0 if fails else 4,
            seconds=seconds * slower * draw.lognormal(0, 0.02),
            error="OutOfMemoryError" if fails else None,
            match=quality.get("match_new"),
        )
        old = Answer(text="a", new_tokens=4, seconds=seconds, match=quality.get("match_old"))
        found.append(
            Served(
                id=str(index),
                prompt_sha256="0" * 64,
                side="challenger",
                champion=old,
                challenger=new,
                agreement=None if fails else quality.get("agreement"),
                champion_nll=None if fails else 1.0,
                challenger_nll=None if fails else 1.0 + quality.get("rise", 0.0),
            )
        )
    return found


def verdict(served, *limits: RolloutLimit, **changes):
    found = judge_stage(served, STAGE, 1, policy(*limits, **changes), now=NOW)
    return found.verdict, {check.figure: check for check in found.checks}


@pytest.mark.parametrize("figure", ["latency_p50", "latency_p95"])
def test_latency(figure) -> None:
    limit = RolloutLimit(figure=figure, limit=1.3)
    assert verdict(pairs(slower=1.0), limit)[0] == "advance"
    said, checks = verdict(pairs(slower=2.0), limit)
    assert said == "roll back"
    assert checks[figure].value == pytest.approx(2, rel=0.1)
    said, checks = verdict(pairs(slower=1.29), limit)
    assert (said, checks[figure].verdict) == ("inconclusive", "open")
    assert verdict(pairs(slower=1.2), RolloutLimit(figure=figure, limit=1.3, on="value"))[0] == (
        "advance"
    )


@pytest.mark.parametrize(
    ("limit", "good", "bad"),
    [
        (RolloutLimit(figure="match", limit=0.05), (1.0, 1.0), (1.0, 0.5)),
        (RolloutLimit(figure="agreement", limit=0.9), 1.0, 0.5),
        (RolloutLimit(figure="likelihood", limit=0.05), 0.0, 0.5),
    ],
)
def test_quality(limit, good, bad) -> None:
    def quality(value):
        if limit.figure == "match":
            return {"match_old": value[0], "match_new": value[1]}
        return {"agreement" if limit.figure == "agreement" else "rise": value}

    assert verdict(pairs(**quality(good)), limit)[0] == "advance"
    said, checks = verdict(pairs(**quality(bad)), limit)
    assert (said, checks[limit.figure].verdict) == ("roll back", "outside")


def test_failures_count_as_errors_and_as_lost_quality() -> None:
    limit = RolloutLimit(figure="agreement", limit=0.9)
    said, checks = verdict(pairs(failing=0.5, agreement=1.0), limit)
    assert said == "roll back"
    assert checks["errors"].value == pytest.approx(0.5, abs=0.1)
    assert checks["agreement"].value == pytest.approx(0.5, abs=0.1)
    assert checks["errors"].verdict == checks["agreement"].verdict == "outside"


def test_few_or_no_data_are_open() -> None:
    limit = RolloutLimit(figure="match", limit=0.05)
    said, checks = verdict(pairs(19, match_old=1.0, match_new=0.0), limit)
    assert said == "inconclusive"
    assert checks["match"].reason == "too few pairs: 19, at least 20 are needed"
    said, checks = verdict(pairs(), limit)
    assert (said, checks["match"].reason) == (
        "inconclusive",
        "too few pairs: 0, at least 20 are needed",
    )
    alone = [one.model_copy(update={"challenger": None}) for one in pairs()]
    assert verdict(alone)[0] == "inconclusive"


def test_a_challenger_at_the_limit_is_seldom_rolled_back_and_seldom_passed() -> None:
    limit = RolloutLimit(figure="latency_p50", limit=1.0)
    said = [verdict(pairs(60, seed=seed), limit)[0] for seed in range(60)]
    assert said.count("roll back") <= 2
    assert said.count("advance") <= 6
