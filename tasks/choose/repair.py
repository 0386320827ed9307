"""Repair after a failed gate: keep the most damaging layers again, if that can help."""

from layerwright.tasks.choose.base import kept_item
from layerwright.tasks.contracts.base import identity
from layerwright.tasks.contracts.costs import CostTable
from layerwright.tasks.contracts.gate import GateDecision
from layerwright.tasks.contracts.plan import ConversionPlan, PlanItem, RepairRound
from layerwright.tasks.contracts.profile import ModelProfile
from layerwright.tasks.recipe.recipe import RepairOptions

# prefixes of the metrics that become worse when more layers are kept
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
    """The record of this repair round, and the repaired plan, or None if repair stops.

    ``done`` counts the rounds so far; ``plan`` is the rejected plan, and ``costs`` the table that
    its times were predicted from.
    """
    stopped = why_not(decision, plan)
    if stopped is None and done >= options.rounds:
        stopped = f"the gate still fails after {options.rounds} rounds of repair"
    repaired = give_back(plan, profile, options, costs) if stopped is None else None
    after = repaired.summary() if repaired else plan.summary()
    record = RepairRound(
        plan=plan,
        candidate_sha256=decision.candidate_sha256,
        failed_checks=decision.failed(),
        given_back=tuple(int(i) for i, kind in plan.summary().items() if kind != after[i]),
        stopped=stopped or "",
    )
    return record, repaired


def why_not(decision: GateDecision, plan: ConversionPlan) -> str | None:
    """Why keeping more layers cannot pass the gate; None if it may pass."""
    costly = [c.metric for c in decision.rejecting if c.metric.startswith(COSTS)]
    if costly:
        return f"{', '.join(costly)} failed, and keeping more layers makes it worse"
    if decision.rejecting and not decision.shown_worse:
        return "no check shows a loss; evaluate more items to pass, not more kept layers"
    converted = [item for item in plan.items if item.strategy != "keep"]
    if not converted:
        return "every layer is kept already"
    if all(item.predicted_language_nats is None for item in converted):
        return "the plan has no damages; add `- name: sensitivity` to profile.profilers"
    return None


def give_back(
    plan: ConversionPlan,
    profile: ModelProfile,
    options: RepairOptions,
    costs: CostTable | None = None,
) -> ConversionPlan:
    """The plan with its most damaging items kept: most damage per saved KV byte first.

    damage(item) = max(language, 0) + recall_weight max(recall, 0), predicted by the profile for the
    item alone; items without a damage come last. Items are kept until at least ``options.layers``
    layers are given back; an item with several layers is kept as a whole. Ties go to the lower
    layer. The plan has at least one converted item.
    """
    times, specs = (costs.at(plan.context_tokens), costs.base_specs) if costs else (None, ())

    def kept(item: PlanItem) -> list[PlanItem]:
        reason, tokens = f"given back by repair; it was {item.strategy}", plan.context_tokens
        sizes = {i: profile.geometry.layer_bytes(i, tokens) for i in range(item.start, item.stop)}
        seconds = {i: times.of_layers(specs[i : i + 1]) if times else None for i in sizes}
        return [kept_item(i, reason, size, seconds[i]) for i, size in sizes.items()]

    def damage_per_byte(item: PlanItem) -> float:
        language, recall = item.predicted_language_nats or 0.0, item.predicted_recall_nats or 0.0
        damage = max(language, 0.0) + options.recall_weight * max(recall, 0.0)
        before = sum(part.predicted_kv_bytes or 0 for part in kept(item))
        return damage / max(before - (item.predicted_kv_bytes or 0), 1)

    converted = [item for item in plan.items if item.strategy != "keep"]
    given_back: set[int] = set()
    for item in sorted(converted, key=lambda item: (-damage_per_byte(item), item.start)):
        if len(given_back) >= options.layers:
            break
        given_back.update(range(item.start, item.stop))
    items = [part for i in plan.items for part in (kept(i) if i.start in given_back else [i])]
    return plan.model_copy(update={"items": tuple(items), "repaired_from": identity(plan)})
