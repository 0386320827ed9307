"""What a manager reads: what was done, what it saves, what it costs, what became of it."""

from __future__ import annotations

from collections import Counter

from layerwright.tasks.contracts.plan import ConversionPlan
from layerwright.tasks.report.bundle import ReportBundle
from layerwright.tasks.report.formats import (
    data_size,
    duration,
    length,
    moment,
    number,
    options,
    percent,
)
from layerwright.tasks.report.gate import rejection
from layerwright.tasks.report.looks import looks
from layerwright.tasks.report.measurements import longest, rows
from layerwright.tasks.report.returns import money_saved

KEEP = "keep"


def plan_sentence(plan: ConversionPlan) -> str:
    """``15 of 30 layers become streaming (sinks 4, window 252); 15 stay as they were``."""
    groups: Counter[tuple[str, str]] = Counter()
    for item in plan.items:
        groups[(item.strategy, options(item.params))] += item.stop - item.start
    kept = sum(n for (name, _), n in groups.items() if name == KEEP)
    parts = [
        f"{n} of {plan.layers} layers become {name}" + (f" ({params})" if params else "")
        for (name, params), n in groups.items()
        if name != KEEP
    ]
    if not parts:
        return f"all {plan.layers} layers stay as they were"
    return ", ".join(parts) + (f"; {kept} stay as they were" if kept else "")


def done(bundle: ReportBundle) -> str:
    text = f"In {bundle.model.source}, {plan_sentence(bundle.plan)}."
    for strategy, look in looks(bundle.plan).items():
        if strategy != KEEP and look.meaning:
            text += f" {strategy}: {look.meaning[:1].lower()}{look.meaning[1:]}"
    tuned = bundle.finetune
    if tuned is None or tuned.steps == 0:
        return f"{text} No fine-tuning."
    return (
        f"{text} Then fine-tuned for {tuned.steps:,} steps on {tuned.tokens:,} tokens "
        f"({duration(tuned.seconds)})."
    )


def saves(bundle: ReportBundle) -> str:
    found = rows(bundle.evaluation)
    parts = []
    if kv := longest(found, "kv_bytes"):
        base, mine = kv.value("base"), kv.value("candidate")
        parts.append(
            f"At {kv.tokens:,} tokens the KV cache takes {data_size(mine)} instead of "
            f"{data_size(base)} ({percent(kv.change, signed=True)})"
        )
    if speed := longest(found, "decode_tokens_per_s"):
        parts.append(
            f"decoding at {length(speed.tokens or 0)} is {1 + (speed.change or 0):.2f} times as "
            f"fast on {bundle.evaluation.device}"
        )
    if bundle.cost and (told := money_saved(bundle.cost)):
        parts.append(told)
    return _sentence(parts) if parts else "No saving was measured."


def costs(bundle: ReportBundle) -> str:
    found = rows(bundle.evaluation)
    parts = []
    worst = max(
        (r for r in found if r.family == "perplexity" and r.change is not None),
        key=lambda r: r.change or 0.0,
        default=None,
    )
    if worst:
        if (worst.change or 0) > 0:
            parts.append(f"Perplexity rises by at most {percent(worst.change)} ({worst.subject})")
        else:
            parts.append("Perplexity rises on no text")
    agreement = [
        v for r in found if r.family == "top1_agreement" and (v := r.value("candidate")) is not None
    ]
    if agreement:
        parts.append(f"{percent(min(agreement))} of next tokens are the base's own choice")
    for row in (r for r in found if r.family == "recall"):
        base, mine = number(row.value("base")), number(row.value("candidate"))
        parts.append(f"{row.subject} recall: {mine}, base {base}")
    return _sentence(parts) if parts else "No loss of quality was measured."


def _sentence(parts: list[str]) -> str:
    text = "; ".join(parts)
    return text[:1].upper() + text[1:] + "."


def outcome(bundle: ReportBundle) -> str:
    made = bundle.registration
    if made:
        again = " (it was there already; its digest was verified)" if made.found else ""
        return (
            f"Registered as {made.name}, version {made.version}, alias {made.alias}{again}. "
            f"The decision holds until {moment(bundle.gate.expires_at)}."
        )
    if bundle.gate.accepted:
        return "Accepted, but not registered: this run has no registry."
    return f"Nothing was registered: {rejection(bundle.gate)}."
