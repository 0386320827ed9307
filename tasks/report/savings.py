"""Key figures, and what the plan predicted beside what was measured."""

from __future__ import annotations

import math
from dataclasses import dataclass

from layerwright.tasks.report.bundle import ReportBundle
from layerwright.tasks.report.formats import MISSING, data_size, length, number, percent
from layerwright.tasks.report.measurements import Row, longest, rows


@dataclass(frozen=True)
class Tile:
    """One key figure: name, figure, what it stands beside."""

    name: str
    figure: str
    note: str


def tiles(bundle: ReportBundle) -> list[Tile]:
    """Up to five key figures; what was not measured has no tile."""
    found = rows(bundle.evaluation)
    made = []
    if kv := longest(found, "kv_bytes"):
        made.append(
            Tile(
                f"KV cache at {length(kv.tokens or 0)}",
                percent(kv.change, signed=True),
                f"{data_size(kv.value('base'))} → {data_size(kv.value('candidate'))}",
            )
        )
    ratios = [r for r in found if r.family == "perplexity" and r.change is not None]
    if ratios:
        worst = max(ratios, key=lambda r: r.change or 0.0)
        made.append(
            Tile(
                "Perplexity, worst text",
                percent(worst.change, signed=True),
                f"{number(worst.value('base'))} → {number(worst.value('candidate'))}, "
                f"{worst.subject}",
            )
        )
    for row in [r for r in found if r.family == "recall" and r.value("candidate") is not None][:1]:
        made.append(
            Tile(
                f"Recall, {row.subject}",
                number(row.value("candidate")),
                f"base {number(row.value('base'))}",
            )
        )
    agreements = [
        r for r in found if r.family == "top1_agreement" and r.value("candidate") is not None
    ]
    if agreements:
        low = min(agreements, key=lambda r: r.value("candidate") or 0.0)
        made.append(Tile("Top-1 agreement", percent(low.value("candidate")), low.subject))
    if speed := longest(found, "decode_tokens_per_s"):
        made.append(
            Tile(
                f"Decoding at {length(speed.tokens or 0)}",
                f"{1 + (speed.change or 0):.2f}×",  # noqa: RUF001, the sign that people read
                f"{number(speed.value('base'))} → {number(speed.value('candidate'))} tokens/s",
            )
        )
    return made


@dataclass(frozen=True)
class Saving:
    """KV bytes at one length; bar widths are shares of the base's bytes."""

    tokens: int
    base: float | None
    predicted: int | None
    measured: float | None

    def share(self, value: float | None) -> float | None:
        return None if value is None or not self.base else value / self.base

    def saved(self, value: float | None) -> str:
        share = self.share(value)
        return MISSING if share is None else percent(1 - share)

    @property
    def agreement(self) -> str:
        if not self.predicted or self.measured is None:
            return "no prediction" if self.predicted is None else MISSING
        error = self.measured / self.predicted - 1
        return "exact" if error == 0 else percent(error, signed=True)


def saving(bundle: ReportBundle, row: Row) -> Saving:
    tokens = row.tokens or 0
    return Saving(tokens, row.value("base"), bundle.predicted_kv(tokens), row.value("candidate"))


def planned_saving(bundle: ReportBundle) -> str:
    """The plan's own prediction, at the context length that it was made for."""
    plan = bundle.plan
    mine = bundle.predicted_kv(plan.context_tokens)
    if mine is None:
        return "The plan predicts no KV bytes for some of its layers."
    base = bundle.profile.base_kv_bytes(plan.context_tokens)
    saved = f", {percent(1 - mine / base)} saved" if base else ""
    return (
        f"The plan was made for {plan.context_tokens:,} tokens and predicts a KV cache of "
        f"{data_size(mine)} instead of {data_size(base)}{saved}."
    )


@dataclass(frozen=True)
class Prediction:
    """A figure that the plan predicted beside what came out."""

    what: str
    predicted: str
    measured: str


def damage_predictions(bundle: ReportBundle) -> list[Prediction]:
    """The plan's summed single-layer damages beside the measured ones, after fine-tuning."""
    items, made = bundle.plan.items, []
    language = [i.predicted_language_nats for i in items if i.predicted_language_nats is not None]
    recall = [i.predicted_recall_nats for i in items if i.predicted_recall_nats is not None]
    for row in rows(bundle.evaluation):
        base, mine = row.value("base"), row.value("candidate")
        if row.family == "perplexity" and base and mine and language:
            made.append(
                Prediction(
                    f"Rise of NLL, {row.subject}, nats per token",
                    number(sum(language), signed=True),
                    number(math.log(mine / base), signed=True),
                )
            )
        if row.family == "key_log_prob" and base is not None and mine is not None and recall:
            made.append(
                Prediction(
                    f"Fall of the key's log-probability, {row.subject}, nats per key token",
                    number(sum(recall), signed=True),
                    number(base - mine, signed=True),
                )
            )
    return made
