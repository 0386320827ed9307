"""Measurements sorted for reading: which figure belongs to which part of the page.

A name is ``family.subject``: ``perplexity.docs``, ``kv_bytes.8192.b4``. A family that is not in the
catalogue is still shown, in the table of other measurements.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from layerwright.tasks.contracts.evaluation import ARMS, Arm, EvalReport, Measurement
from layerwright.tasks.contracts.gate import GateDecision
from layerwright.tasks.contracts.workload import Workload


@dataclass(frozen=True)
class Family:
    """How the measurements of one family are shown."""

    label: str
    part: str  # "quality", "by_length", "overlap" or "other"
    help: str
    log: bool = False
    reference: float | None = None  # where nothing has changed


CATALOGUE = {
    "perplexity": Family("Perplexity", "quality", "exp of the mean NLL per token; lower is better"),
    "perplexity_ratio": Family(
        "Perplexity, ratio to base", "quality", "1 is unchanged; lower is better", reference=1.0
    ),
    "top1_agreement": Family(
        "Top-1 agreement", "quality", "share of tokens with the base's first choice"
    ),
    "kl_mean": Family(
        "KL to base, mean", "quality", "nats per token; 0 is the base itself", log=True
    ),
    "stream_drift": Family(
        "Distance of the stream", "quality", "of the base's norm, mean over layers; 0 is the base"
    ),
    "kl_p99": Family(
        "KL to base, 99th percentile", "quality", "nats; the worst 1 % of tokens", log=True
    ),
    "recall": Family("Recall", "quality", "share of exact keys, outside every window"),
    "key_log_prob": Family(
        "Log-probability of the key", "quality", "nats per key token; 0 is best"
    ),
    "task": Family("Zero-shot tasks", "quality", "share of items right; higher is better"),
    "harness": Family("lm-eval", "quality", "as lm-eval scores it"),
    "word_perplexity": Family(
        "Perplexity of last words", "quality", "exp of the mean NLL per word; lower is better"
    ),
    "generation": Family("Generation", "quality", "share right, or of the reference's words"),
    "exact_match": Family("Exact match", "quality", "share right, the answer read otherwise"),
    "length_ratio": Family(
        "Length of what is written", "quality", "tokens over the base's", reference=1.0
    ),
    "repetition": Family("Repetition", "quality", "share of repeated n-grams; lower is better"),
    "kv_bytes": Family("KV cache", "by_length", "measured; lower is better"),
    "peak_memory_bytes": Family(
        "Peak memory", "by_length", "weights and a request at its peak; lower is better"
    ),
    "prefill_ms": Family("Prefill", "by_length", "ms to read the prompt; lower is better"),
    "first_token_ms": Family("Time to first token", "by_length", "ms; lower is better"),
    "decode_tokens_per_s": Family(
        "Decoding", "by_length", "tokens/s of all rows; higher is better"
    ),
    "latency_p50_ms": Family("Request, median", "by_length", "ms, whole; lower is better"),
    "latency_p95_ms": Family("Request, 95th percentile", "by_length", "ms, whole; lower is better"),
    "overlap": Family("n-gram overlap", "overlap", "share of n-grams seen in fine-tuning"),
}


@dataclass(frozen=True)
class Row:
    """One metric over the arms. ``subject`` is what follows the first dot of its name."""

    metric: str
    family: str
    subject: str
    arms: dict[Arm, Measurement]

    @property
    def known(self) -> Family:
        return CATALOGUE.get(self.family) or Family(self.family, "other", "")

    @property
    def any(self) -> Measurement:
        return next(iter(self.arms.values()))

    def value(self, arm: Arm) -> float | None:
        found = self.arms.get(arm)
        return found.value if found else None

    @property
    def change(self) -> float | None:
        """Candidate over base, minus one."""
        base, candidate = self.value("base"), self.value("candidate")
        return candidate / base - 1 if base and candidate is not None and base > 0 else None

    @property
    def note(self) -> str:
        """What the figure is and how it was measured, once where all arms say the same."""
        details = (m.detail for m in self.arms.values() if m.value is not None and m.detail)
        name = self.known.label
        if self.known.part == "other":
            name = (
                f"{self.any.unit}, {'higher' if self.any.higher_is_better else 'lower'} is better"
            )
        return "; ".join(dict.fromkeys((name, *details)))

    @property
    def workload(self) -> Workload | None:
        """Context length, new tokens and batch size in the name, where it has them."""
        return Workload.parse(self.subject)

    @property
    def tokens(self) -> int | None:
        """The context length in the name, where it is one."""
        return self.workload and self.workload.prompt_tokens

    @property
    def batch(self) -> int:
        return self.workload.batch if self.workload else 1


def rows(report: EvalReport) -> list[Row]:
    """One row per metric, families in the catalogue's order, then the unknown ones."""
    return rows_of(report.measurements)


def rows_of(measurements: Iterable[Measurement]) -> list[Row]:
    """As ``rows``, of one evaluation's measurements."""
    order = list(CATALOGUE)
    found: dict[str, dict[Arm, Measurement]] = {}
    for measurement in measurements:
        found.setdefault(measurement.metric, {})[measurement.arm] = measurement
    all_rows = []
    for metric, arms in found.items():
        family, _, subject = metric.partition(".")
        row = Row(metric, family, subject, {arm: arms[arm] for arm in ARMS if arm in arms})
        if row.known.part == "by_length" and row.tokens is None:
            row = Row(metric, metric, "", row.arms)  # no length in its name: no curve for it
        all_rows.append(row)
    all_rows.sort(key=lambda r: order.index(r.family) if r.family in order else len(order))
    return all_rows


def families(some: list[Row]) -> dict[str, list[Row]]:
    grouped: dict[str, list[Row]] = {}
    for row in some:
        grouped.setdefault(row.family, []).append(row)
    return grouped


def curves(some: list[Row]) -> list[list[Row]]:
    """Rows that are one curve over the length: a family at one batch size and answer length."""
    grouped: dict[tuple[str, int, int], list[Row]] = {}
    for row in some:
        if load := row.workload:
            grouped.setdefault((row.family, load.batch, load.new_tokens), []).append(row)
    return list(grouped.values())


def limit_of(row: Row, all_rows: list[Row], decision: GateDecision) -> float | None:
    """The gate's limit on the scale of ``row``'s own values, where a check gives one.

    A limit on the ratio of two perplexities is also one on the ratio that was measured.
    """
    source = {r.metric: r for r in all_rows}
    for check in decision.checks:
        judged = source.get(check.metric)
        if judged is None or check.value is None or check.arm != "base" or check.slice:
            continue
        if check.compare == "ratio" and row.metric == f"perplexity_ratio.{judged.subject}":
            return check.limit
        if judged is not row:
            continue
        if check.compare == "value":
            return check.limit
        base = judged.value("base")
        if base is not None and check.compare == "ratio":
            return check.limit * base
        if base is not None and check.compare == "difference":
            return base + check.limit
    return None


def longest(found: list[Row], family: str) -> Row | None:
    """The family's row of one request at a time, at the longest context that both arms have."""
    some = [
        r
        for r in found
        if r.family == family and r.change is not None and r.tokens and r.batch == 1
    ]
    return max(some, key=lambda r: r.tokens or 0, default=None)
