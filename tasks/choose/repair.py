"""After a failed gate: which converted layers to give back first, and when that cannot help."""

from __future__ import annotations

from layerwright.tasks.contracts.base import identity
from layerwright.tasks.contracts.costs import CostTable
from layerwright.tasks.contracts.gate import GateDecision
from layerwright.tasks.contracts.plan import ConversionPlan, PlanItem, RepairRound
from layerwright.tasks.contracts.profile import ModelProfile
from layerwright.tasks.recipe.repair import RepairOptions

# figures that giving back makes worse
COSTS = (
    "kv_bytes.", "peak_memory_bytes.", "prefill_ms.", "first_token_ms.", "decode_tokens_per_s.",
    "latency_",
)  # fmt: skip


def next_round(
    options: RepairOptions,
    done: int,
    plan: ConversionPlan,
    profile: ModelProfile,
    decision: GateDecision,
    costs: CostTable | None = None,
) -> tuple[RepairRound, ConversionPlan | None]:
    """What is done about a rejection, and the plan to go on with; None where nothing is.

    Args:
        done: rounds of repair that were made before.
        plan: the rejected one.
        costs: the table that its times were predicted from.
    """
    stopped = why_not(decision, plan)
    if stopped is None and done >= options.rounds:
        stopped = f"{options.rounds} rounds of repair did not help"
    repaired = give_back(plan, profile, options, costs) if stopped is None else None
    then = repaired.summary() if repaired else plan.summary()
    record = RepairRound(
        plan=plan,
        candidate_sha256=decision.candidate_sha256,
        failed_checks=decision.failed(),
        given_back=tuple(int(i) for i, kind in plan.summary().items() if kind != then[i]),
        stopped=stopped or "",
    )
    return record, repaired


def why_not(decision: GateDecision, plan: ConversionPlan) -> str | None:
    """Why giving layers back cannot turn a rejection around; None where it may."""
    costly = [c.metric for c in decision.rejecting if c.metric.startswith(COSTS)]
    if costly:
        return f"{', '.join(costly)} failed, which giving layers back makes worse"
    if decision.rejecting and not decision.shown_worse:
        return "no loss was shown: more items are needed, not more layers"
    converted = [item for item in plan.items if item.strategy != "keep"]
    if not converted:
        return "every layer is kept already"
    if all(item.predicted_language_nats is None for item in converted):
        return (
            "the plan does not say what its layers cost; add `- name: sensitivity` to the profile"
        )
    return None


def give_back(
    plan: ConversionPlan,
    profile: ModelProfile,
    options: RepairOptions,
    costs: CostTable | None = None,
) -> ConversionPlan:
    """The plan with its dearest items kept: most predicted damage per KV byte regained.

    damage(item) = max(language, 0) + recall_weight max(recall, 0), the profile's, of the item
    alone; items without a damage come last. Items go back until ``layers`` layers have; a run goes
    back as a whole. Ties go to the lower layer.

    Args:
        plan: with one converted item at least.
    """

    def regained(item: PlanItem) -> int:
        whole = sum(
            profile.geometry.layer_bytes(layer, plan.context_tokens)
            for layer in range(item.start, item.stop)
        )
        return max(whole - (item.predicted_kv_bytes or 0), 1)

    def won(item: PlanItem) -> float:
        language, recall = item.predicted_language_nats or 0.0, item.predicted_recall_nats or 0.0
        damage = max(language, 0.0) + options.recall_weight * max(recall, 0.0)
        return damage / regained(item)

    dearest = sorted(
        (item for item in plan.items if item.strategy != "keep"), key=lambda i: (-won(i), i.start)
    )
    back: set[int] = set()
    for item in dearest:
        if len(back) >= options.layers:
            break
        back.update(range(item.start, item.stop))
    items = [
        part
        for item in plan.items
        for part in (_kept(item, plan, profile, costs) if item.start in back else (item,))
    ]
    return plan.model_copy(update={"items": tuple(items), "repaired_from": identity(plan)})


def _kept(
    item: PlanItem, plan: ConversionPlan, profile: ModelProfile, costs: CostTable | None
) -> list[PlanItem]:
    times = costs.at(plan.context_tokens) if costs else None
    return [
        PlanItem(
            start=layer,
            stop=layer + 1,
            strategy="keep",
            reason=f"given back by repair; it was {item.strategy}",
            predicted_language_nats=0.0,
            predicted_recall_nats=0.0,
            predicted_kv_bytes=profile.geometry.layer_bytes(layer, plan.context_tokens),
            predicted_time=times.of_layers([costs.base_specs[layer]]) if costs and times else None,
        )
        for layer in range(item.start, item.stop)
    ]
