"""Layers given back after a rejection: which, in which order, and when it cannot help."""

import pytest
from choose.problems import BYTES_PER_TOKEN, CONTEXT, converted, problem, profile
from costs.tables import cost_table

from layerwright.tasks.choose.repair import give_back, next_round, why_not
from layerwright.tasks.choose.selectors.convert_all import ConvertAll
from layerwright.tasks.contracts.base import identity
from layerwright.tasks.contracts.gate import Check, GateDecision
from layerwright.tasks.contracts.plan import ConversionPlan, PassTime, PlanItem
from layerwright.tasks.recipe.recipe import RepairOptions

LANGUAGE, RECALL = [0.1, 0.3, -0.2, 0.05], [0.0, 0.0, 0.0, 3.0]
PROFILE = profile(LANGUAGE, RECALL)


def plan(items=None) -> ConversionPlan:
    return ConversionPlan(
        model_sha256="a" * 64,
        layers=4,
        context_tokens=CONTEXT,
        selector="convert_all",
        items=items or ConvertAll().select(problem(PROFILE)),
    )


def decision(*failed: str, severity: str = "fail", inconclusive: bool = False) -> GateDecision:
    checks = tuple(
        Check(
            metric=m,
            rule="",
            compare="ratio",
            value=1,
            limit=0,
            is_floor=False,
            margin=-1,
            passed=False,
            severity=severity,
            inconclusive=inconclusive,
        )
        for m in failed
    )
    return GateDecision(
        accepted=False, checks=checks, candidate_sha256="c", decided_at="", expires_at=""
    )


@pytest.mark.parametrize(
    ("weight", "order"), [(0.1, [3, 1, 0, 2]), (0.0, [1, 0, 3, 2]), (10.0, [3, 1, 0, 2])]
)
def test_the_dearest_layers_go_back_first(weight: float, order: list[int]) -> None:
    before = plan()
    for layers in range(1, 5):
        options = RepairOptions(layers=layers, recall_weight=weight)
        after = give_back(before, PROFILE, options)
        assert converted(after.items) == set(range(4)) - set(order[:layers])
        assert after.repaired_from == identity(before)
        kept = next(item for item in after.items if item.start == order[0])
        assert "given back by repair; it was streaming" in kept.reason
        assert kept.predicted_kv_bytes == CONTEXT * BYTES_PER_TOKEN


def test_what_is_given_back_takes_the_bases_time_again() -> None:
    costs = cost_table(4, CONTEXT)
    after = give_back(plan(), PROFILE, RepairOptions(layers=1), costs)
    times = {item.strategy: item.predicted_time for item in after.items}
    assert times["keep"] == PassTime(prefill_seconds=8.0, decode_seconds_per_token=4.0)


def test_more_items_are_asked_for_where_no_loss_was_shown() -> None:
    assert "evaluate more items" in (why_not(decision("recall.x", inconclusive=True), plan()) or "")
    assert why_not(decision("recall.x"), plan()) is None


def test_damage_counts_per_byte_and_a_run_goes_back_as_a_whole() -> None:
    whole = CONTEXT * BYTES_PER_TOKEN
    items = (
        PlanItem(start=0, stop=1, strategy="streaming", predicted_language_nats=0.1,
                 predicted_kv_bytes=whole // 2),
        PlanItem(start=1, stop=4, strategy="linear", predicted_language_nats=0.3,
                 predicted_kv_bytes=0),
    )  # fmt: skip
    first = give_back(plan(items), PROFILE, RepairOptions(layers=1))
    assert converted(first.items) == {1}, "0.1 nats for half a cache before 0.3 for three"
    second = give_back(first, PROFILE, RepairOptions(layers=1))
    assert converted(second.items) == set()
    assert [(item.start, item.stop) for item in second.items] == [(n, n + 1) for n in range(4)]
    assert second.repaired_from == identity(first)


def test_when_it_cannot_help() -> None:
    assert why_not(decision("perplexity.docs"), plan()) is None
    assert why_not(decision("decode_tokens_per_s.512", severity="warn"), plan()) is None
    reason = why_not(decision("perplexity.docs", "kv_bytes.8192"), plan())
    assert reason is not None
    assert reason.startswith("kv_bytes.8192 failed, and keeping more layers")
    kept = plan((PlanItem(start=0, stop=4, strategy="keep"),))
    assert why_not(decision("perplexity.docs"), kept) == "every layer is kept already"
    by_hand = plan((PlanItem(start=0, stop=4, strategy="streaming"),))
    assert "sensitivity" in why_not(decision("perplexity.docs"), by_hand)


def test_a_round_says_what_it_did_and_the_last_one_why_no_more() -> None:
    before, options = plan(), RepairOptions(rounds=2, layers=1)
    record, after = next_round(options, 1, before, PROFILE, decision("perplexity.docs"))
    assert (record.plan, record.given_back, record.stopped) == (before, (3,), "")
    assert record.failed_checks == ("perplexity.docs: ",)
    assert after == give_back(before, PROFILE, options)
    record, after = next_round(options, 2, before, PROFILE, decision("perplexity.docs"))
    assert (after, record.given_back) == (None, ())
    assert "2 rounds of repair" in record.stopped
