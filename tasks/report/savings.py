"""Key figures, and the plan's predictions of bytes, damage and time compared with measurements."""

import math
from collections.abc import Callable
from typing import NamedTuple

from layerwright.tasks.contracts.costs import CostTable, time_ratio
from layerwright.tasks.contracts.evaluation import Arm
from layerwright.tasks.contracts.plan import PassTime
from layerwright.tasks.report.bundle import ReportBundle
from layerwright.tasks.report.formats import MISSING, data_size, length, number, percent
from layerwright.tasks.report.measurements import Row, longest, rows

# by metric: its name on the page, the field of PassTime, and (value, rows) -> milliseconds
PARTS: dict[str, tuple[str, str, Callable[[float, int], float]]] = {
    "prefill_ms": ("Prefill of", "prefill_seconds", lambda ms, rows: ms),
    "decode_tokens_per_s": (
        "One new token after",
        "decode_seconds_per_token",
        lambda rate, rows: 1e3 * rows / rate,
    ),
}


def tiles(bundle: ReportBundle) -> list[tuple[str, str, str]]:
    """At most five (name, key figure, what it is compared with), of what was measured."""
    all_rows = rows(bundle.evaluation)
    shown = []
    if kv := longest(all_rows, "kv_bytes"):
        sizes = f"{data_size(kv.value('base'))} → {data_size(kv.value('candidate'))}"
        name = f"KV cache at {length(kv.tokens or 0)}"
        shown.append((name, percent(kv.change, signed=True), sizes))
    ratios = [r for r in all_rows if r.family == "perplexity" and r.change is not None]
    if ratios:
        worst = max(ratios, key=lambda r: r.change or 0.0)
        both = f"{number(worst.value('base'))} → {number(worst.value('candidate'))}"
        change = percent(worst.change, signed=True)
        shown.append(("Perplexity, worst text", change, f"{both}, {worst.subject}"))
    measured = [r for r in all_rows if r.value("candidate") is not None]
    if recall := next((r for r in measured if r.family == "recall"), None):
        figure, base = number(recall.value("candidate")), number(recall.value("base"))
        shown.append((f"Recall, {recall.subject}", figure, f"base {base}"))
    if agreements := [r for r in measured if r.family == "top1_agreement"]:
        low = min(agreements, key=lambda r: r.value("candidate") or 0.0)
        shown.append(("Top-1 agreement", percent(low.value("candidate")), low.subject))
    if speed := longest(all_rows, "decode_tokens_per_s"):
        rates = f"{number(speed.value('base'))} → {number(speed.value('candidate'))} tokens/s"
        faster = f"{1 + (speed.change or 0):.2f}\N{MULTIPLICATION SIGN}"
        shown.append((f"Decoding at {length(speed.tokens or 0)}", faster, rates))
    return shown


class Saving(NamedTuple):
    """KV bytes at one context length: of the base, and of the candidate predicted and measured."""

    tokens: int
    base: float | None
    predicted: float | None
    measured: float | None

    def share(self, value: float | None) -> float | None:
        return None if value is None or not self.base else value / self.base

    def saved(self, value: float | None) -> str:
        share = self.share(value)
        return MISSING if share is None else percent(1 - share)

    @property
    def agreement(self) -> str:
        """How far the measurement is from the prediction."""
        if not self.predicted or self.measured is None:
            return "no prediction" if self.predicted is None else MISSING
        error = self.measured / self.predicted - 1
        return "exact" if error == 0 else percent(error, signed=True)


def saving(bundle: ReportBundle, row: Row) -> Saving:
    tokens = row.tokens or 0
    return Saving(tokens, row.value("base"), bundle.predicted_kv(tokens), row.value("candidate"))


def planned_saving(bundle: ReportBundle) -> str:
    """A sentence on the KV bytes that the plan predicts at its context length."""
    plan = bundle.plan
    planned = bundle.predicted_kv(plan.context_tokens)
    if planned is None:
        return "The plan has no prediction of KV bytes for some of its layers."
    base = bundle.profile.base_kv_bytes(plan.context_tokens)
    saved = f" ({percent(1 - planned / base)} less)" if base else ""
    return (
        f"The plan was made for {plan.context_tokens:,} tokens. At this length it predicts a KV "
        f"cache of {data_size(planned)} instead of {data_size(base)}{saved}."
    )


def damage_predictions(bundle: ReportBundle) -> list[tuple[str, float, float]]:
    """(what, sum of the plan's predicted damages, the candidate's measured damage) in nats."""
    items, predictions = bundle.plan.items, []
    language = [i.predicted_language_nats for i in items if i.predicted_language_nats is not None]
    recall = [i.predicted_recall_nats for i in items if i.predicted_recall_nats is not None]
    for row in rows(bundle.evaluation):
        base, candidate = row.value("base"), row.value("candidate")
        if row.family == "perplexity" and base and candidate and language:
            what = f"Increase of the NLL, {row.subject}, nats per token"
            predictions.append((what, sum(language), math.log(candidate / base)))
        if row.family == "key_log_prob" and base is not None and candidate is not None and recall:
            what = f"Decrease of the key's log-probability, {row.subject}, nats per key token"
            predictions.append((what, sum(recall), base - candidate))
    return predictions


class TimeRow(NamedTuple):
    """One time of one arm, predicted and measured, in milliseconds."""

    what: str
    arm: Arm
    predicted_ms: float
    measured_ms: float

    @property
    def error(self) -> str:
        return percent(self.predicted_ms / self.measured_ms - 1, signed=True)


def time_rows(bundle: ReportBundle) -> list[TimeRow]:
    """Base and candidate at each length that is in the cost table and in the evaluation."""
    costs = bundle.costs
    if costs is None:
        return []
    times = []
    for row in rows(bundle.evaluation):
        if row.family in PARTS and row.tokens is not None and row.batch == costs.batch:
            predicted: dict[Arm, PassTime | None] = {
                "base": _base_time(bundle, row.tokens),
                "candidate": bundle.predicted_times.get(row.tokens),
            }
            for arm, time in predicted.items():
                if time is not None and (value := row.value(arm)):
                    what, part, in_ms = PARTS[row.family]
                    name = f"{what} {length(row.tokens)} tokens"
                    measured = in_ms(value, row.batch)
                    times.append(TimeRow(name, arm, getattr(time, part) * 1e3, measured))
    return times


def planned_times(bundle: ReportBundle) -> str | None:
    """A sentence on the predicted times at the plan's context length; None without a prediction."""
    tokens = bundle.plan.context_tokens
    planned, base = bundle.predicted_times.get(tokens), _base_time(bundle, tokens)
    if planned is None or base is None:
        return None
    ratio = time_ratio(planned, base)
    return (
        "From the measured times of single layers, the predicted prefill time is "
        f"{percent(ratio.prefill)} of the base's, and the predicted time per new token "
        f"{percent(ratio.decode)}."
    )


def _base_time(bundle: ReportBundle, tokens: int) -> PassTime | None:
    at = bundle.costs.at(tokens) if bundle.costs else None
    return at.of_model(bundle.costs.base_specs) if bundle.costs and at else None


def adding_up(costs: CostTable) -> str:
    """The error of the prediction for the mixed model of the cost table, by context length."""
    parts = []
    for at in costs.contexts:
        prefill, decode = (percent(ratio - 1, signed=True) for ratio in at.adding_up)
        tokens = length(at.context_tokens)
        parts.append(f"{prefill} for prefill and {decode} per new token at {tokens} tokens")
    return "; ".join(parts)
