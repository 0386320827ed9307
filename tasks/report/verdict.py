"""The summary at the top of the page: converted layers, savings, quality, decision."""

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
    """``15 of 30 layers become streaming (sinks 4, window 252); 15 stay unchanged``."""
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
        return f"all {plan.layers} layers stay unchanged"
    return ", ".join(parts) + (f"; {kept} stay unchanged" if kept else "")


def done(bundle: ReportBundle) -> str:
    text = f"In {bundle.model.source}, {plan_sentence(bundle.plan)}."
    for strategy, look in looks(bundle.plan).items():
        if strategy != KEEP and look.meaning:
            text += f" {strategy}: {look.meaning[:1].lower()}{look.meaning[1:]}"
    training = bundle.finetune
    if training is None or training.steps == 0:
        return f"{text} No fine-tuning."
    return (
        f"{text} The converted model was fine-tuned for {training.steps:,} steps on "
        f"{training.tokens:,} tokens ({duration(training.seconds)})."
    )


def saves(bundle: ReportBundle) -> str:
    all_rows = rows(bundle.evaluation)
    parts = []
    if kv := longest(all_rows, "kv_bytes"):
        base, candidate = kv.value("base"), kv.value("candidate")
        parts.append(
            f"At {kv.tokens:,} tokens the KV cache takes {data_size(candidate)} instead of "
            f"{data_size(base)} ({percent(kv.change, signed=True)})"
        )
    if speed := longest(all_rows, "decode_tokens_per_s"):
        parts.append(
            f"decoding at {length(speed.tokens or 0)} tokens is {1 + (speed.change or 0):.2f} "
            f"times as fast on {bundle.evaluation.device}"
        )
    if bundle.cost and (money := money_saved(bundle.cost)):
        parts.append(money)
    return _sentence(parts) if parts else "No saving was measured."


def costs(bundle: ReportBundle) -> str:
    all_rows = rows(bundle.evaluation)
    parts = []
    texts = [r for r in all_rows if r.family == "perplexity" and r.change is not None]
    if worst := max(texts, key=lambda r: r.change or 0.0, default=None):
        if (worst.change or 0) > 0:
            parts.append(f"Perplexity rises by at most {percent(worst.change)} ({worst.subject})")
        else:
            parts.append("Perplexity does not rise on any text")
    agreement = [row.value("candidate") for row in all_rows if row.family == "top1_agreement"]
    if agreement := [value for value in agreement if value is not None]:
        parts.append(
            f"for {percent(min(agreement))} of tokens the candidate's first choice is the base's"
        )
    for row in (r for r in all_rows if r.family == "recall"):
        base, candidate = number(row.value("base")), number(row.value("candidate"))
        parts.append(f"{row.subject} recall is {candidate} (base {base})")
    return _sentence(parts) if parts else "No loss of quality was measured."


def _sentence(parts: list[str]) -> str:
    text = "; ".join(parts)
    return text[:1].upper() + text[1:] + "."


def outcome(bundle: ReportBundle) -> str:
    version = bundle.registration
    if version:
        again = " (the version existed before; its digest was verified)" if version.found else ""
        return (
            f"Registered as {version.name}, version {version.version}, alias {version.alias}"
            f"{again}. The decision is valid until {moment(bundle.gate.expires_at)}."
        )
    if bundle.gate.accepted:
        return "Accepted, but not registered: the recipe has no registry."
    return f"Nothing was registered: {rejection(bundle.gate)}."
