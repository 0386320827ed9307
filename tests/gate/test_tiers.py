"""The tiers: an identical model passes, and each broken one is rejected for its own reason."""

import numpy as np
import pytest
from gate.evidence import NOW, Evidence, bits, evidence, plain

from layerwright.tasks.contracts.gate import GateDecision
from layerwright.tasks.gate.policy import decide
from layerwright.tasks.gate.tiers import FLOORS, REQUIRED_METRICS, task_metrics
from layerwright.tasks.recipe.gate import GatePolicy

TIERS = tuple(FLOORS)
N = 400
RNG = np.random.default_rng(0)
BASE = {
    "recall.passkey.600": bits(N, 370),
    "generation.sums": bits(N, 330),
    "accuracy.quiz": bits(N, 350),
    "perplexity.docs": RNG.normal(3.0, 0.4, 60),
    "perplexity.tales": RNG.normal(3.3, 0.4, 60),
}
COSTS = {
    "kv_bytes__8192": 1000.0, "prefill_ms__2048": 900.0, "decode_tokens_per_s__2048": 12.0,
    "prefill_ms__2048.b4": 3000.0, "decode_tokens_per_s__2048.b4": 40.0,
}  # fmt: skip


def case(candidate: dict | None = None, **figures: float | None) -> Evidence:
    """The base against itself but for what is given."""
    mine = {k: v for k, v in (BASE | (candidate or {})).items() if v is not None}
    report, items = evidence(base=BASE, candidate=mine)
    costs = COSTS | {"length_ratio__sums": 1.0} | figures
    report = plain(report, "base", **COSTS)
    return plain(report, "candidate", **costs), items


def decided(given: Evidence, tier: str) -> GateDecision:
    return decide(*given, GatePolicy(tier=tier), NOW)


def rejected_for(given: Evidence, tier: str) -> dict[str, str]:
    decision = decided(given, tier)
    assert not decision.accepted
    reasons: dict[str, str] = {}
    for check in decision.rejecting:
        reasons[check.metric] = f"{reasons.get(check.metric, '')}; {check.reason}"
    return reasons


@pytest.mark.parametrize("tier", TIERS)
def test_an_identical_model_passes(tier: str) -> None:
    decision = decided(case(), tier)
    assert decision.accepted, decision.failed()
    assert decision.tier == tier
    worst, mean = FLOORS[tier].worst, FLOORS[tier].mean
    rules = [(check.metric, check.rule) for check in decision.checks]
    assert ("recall.passkey.600", f"ratio to the base >= {worst:g}, 95 % bound") in rules
    assert ("all tasks" in dict(rules)) == (mean > worst)


def test_another_reading_of_a_task_is_not_counted_beside_it() -> None:
    read = {"exact_match.sums.flexible": bits(N, 330)}
    report, _ = evidence(base=BASE | read, candidate=BASE | read)
    assert "generation.sums" in task_metrics(report)
    assert "exact_match.sums.flexible" not in task_metrics(report)


def test_lossless_needs_enough_items_even_of_an_identical_model() -> None:
    few = bits(100, 100)
    report, items = evidence(base=BASE | {"recall.passkey.600": few},
                             candidate=BASE | {"recall.passkey.600": few})  # fmt: skip
    given = (
        plain(plain(report, "base", **COSTS), "candidate", **COSTS, length_ratio__sums=1.0),
        items,
    )
    reasons = rejected_for(given, "lossless")
    assert set(reasons) == {"recall.passkey.600"}
    assert "cannot show more than 0.9705" in reasons["recall.passkey.600"]
    assert not decided(given, "lossless").shown_worse


@pytest.mark.parametrize("tier", TIERS)
def test_recall_lost_while_perplexity_is_fine(tier: str) -> None:
    # METHODS: 15 layers by the lazy ratio, perplexity 29.3 -> 30.2, exact keys 0.92 -> 0.00
    given = case(
        {"recall.passkey.600": bits(N, 0), "perplexity.docs": BASE["perplexity.docs"] + 0.005}
    )
    decision = decided(given, tier)
    reasons = rejected_for(given, tier)
    assert set(reasons) <= {"recall.passkey.600", "all tasks"}
    assert "outside the limit" in reasons["recall.passkey.600"]
    assert all(c.passed for c in decision.checks if c.metric.startswith("perplexity"))


@pytest.mark.parametrize("tier", TIERS)
def test_quiz_flat_while_generation_collapses(tier: str) -> None:
    given = case({"generation.sums": bits(N, 40)}, length_ratio__sums=0.3)
    reasons = rejected_for(given, tier)
    assert {"generation.sums", "length_ratio.sums"} <= set(reasons)
    assert not [metric for metric in reasons if metric.startswith(("accuracy", "recall"))]


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("length", [0.5, 1.4])
def test_other_lengths_than_the_base_writes(tier: str, length: float) -> None:
    assert set(rejected_for(case(length_ratio__sums=length), tier)) == {"length_ratio.sums"}


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize(
    ("figure", "value"),
    [
        ("decode_tokens_per_s__2048", 9.0), ("prefill_ms__2048", 1200.0),
        ("kv_bytes__8192", 1001.0), ("decode_tokens_per_s__2048.b4", 30.0),
        ("prefill_ms__2048.b4", 3300.0),
    ],
)  # fmt: skip
def test_slower_or_larger_than_the_base(tier: str, figure: str, value: float) -> None:
    reasons = rejected_for(case(**{figure: value}), tier)
    assert set(reasons) == {figure.replace("__", ".")}
    assert "outside the limit" in next(iter(reasons.values()))


@pytest.mark.parametrize("pattern", REQUIRED_METRICS)
def test_what_a_tier_never_does_without(pattern: str) -> None:
    family = pattern.removesuffix("*")
    report, items = case()
    kept = tuple(m for m in report.measurements if not m.metric.startswith(family))
    blind = report.model_copy(update={"measurements": kept})
    reasons = rejected_for((blind, items), "aggressive")
    assert "0 measured" in reasons[pattern] or "no measurement matches" in reasons[pattern]
    assert set(reasons) == {pattern}


@pytest.mark.parametrize("metric", BASE)
def test_a_metric_that_one_arm_lacks(metric: str) -> None:
    assert (
        "the candidate's value is missing" in rejected_for(case({metric: None}), "standard")[metric]
    )
    report, items = case()
    kept = tuple(m for m in report.measurements if (m.metric, m.arm) != (metric, "base"))
    if metric.startswith("accuracy"):  # without the base it is no task, and no part of the tier
        return
    one_armed = report.model_copy(update={"measurements": kept})
    assert "the base's value is missing" in rejected_for((one_armed, items), "standard")[metric]


def test_standard_lets_a_loss_pass_that_lossless_refuses() -> None:
    lost = RNG.permutation(N)[:8]
    mine = [right and index not in lost for index, right in enumerate(BASE["accuracy.quiz"])]
    given = case({"accuracy.quiz": mine})
    assert decided(given, "standard").accepted
    assert set(rejected_for(given, "lossless")) == {"accuracy.quiz"}


def test_a_tier_and_rules_of_ones_own_hold_together() -> None:
    policy = GatePolicy(tier="standard", rules=({"metric": "kv_bytes.*", "max": 0.6},))
    decision = decide(*case(), policy, NOW)
    assert [check.metric for check in decision.rejecting] == ["kv_bytes.8192"]


def test_multiple_choice_counts_once_by_the_normalised_share() -> None:
    both = {"task.arc.acc": bits(N, 200), "task.arc.acc_norm": bits(N, 220)}
    plain_alone = {"task.boolq.acc": bits(N, 300)}
    report, _ = evidence(base=BASE | both | plain_alone, candidate=BASE)
    tasks = task_metrics(report)
    assert "task.arc.acc_norm" in tasks
    assert "task.boolq.acc" in tasks
    assert "task.arc.acc" not in tasks
