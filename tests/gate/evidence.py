"""Reports with per-item results, made from arrays; and one real pair of models."""

import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from layerwright.tasks.contracts.evaluation import Champion, EvalReport, Measurement
from layerwright.tasks.contracts.gate import Check, GateDecision
from layerwright.tasks.contracts.items import ItemResult
from layerwright.tasks.contracts.references import CheckpointRef
from layerwright.tasks.gate.policy import decide
from layerwright.tasks.recipe.gate import GatePolicy, GateRule

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
CHAMPION = Champion(
    version="3",
    checkpoint=CheckpointRef(
        uri="", sha256="d" * 64, bytes=1, base_sha256="b" * 64, plan_sha256="p" * 64
    ),
)
# SmolLM2-135M-Instruct and the checkpoint of recipes/quickstart.yaml, 3 rows of 400 tokens of the
# Python documentation: was the next token the most likely one, and its NLL in nats
PAIR = json.loads((Path(__file__).parent / "real_pair.json").read_text())

Values = Mapping[str, Sequence[float | bool]]
Evidence = tuple[EvalReport, list[ItemResult]]


def right(arm: str) -> np.ndarray:
    return np.array([figure == "1" for figure in PAIR[arm]["right"]])


def nats(arm: str) -> np.ndarray:
    return np.array(PAIR[arm]["nll"])


def bits(n: int, right: int) -> list[bool]:
    """``right`` of ``n`` items right, the first ones."""
    return [index < right for index in range(n)]


def evidence(
    *, slices: Sequence[str] = (), crowned: Champion | None = None, **arms: Values
) -> Evidence:
    """A report whose metrics have these items, by arm; those of ``perplexity.*`` are nats."""
    measurements, items = [], []
    for arm, metrics in arms.items():
        for metric, values in metrics.items():
            is_nats = metric.startswith("perplexity")
            mean = float(np.mean(values))
            measurements.append(
                Measurement(
                    metric=metric,
                    arm=arm,
                    value=math.exp(mean) if is_nats else mean,
                    unit="perplexity" if is_nats else "share",
                    higher_is_better=not is_nats,
                    count=len(values),
                    aggregate="exp_mean" if is_nats else "mean",
                )
            )
            is_right = not is_nats and all(isinstance(v, bool | np.bool_) for v in values)
            for index, value in enumerate(values):
                result = {"correct": bool(value)} if is_right else {"value": float(value)}
                items.append(
                    ItemResult(
                        metric=metric,
                        arm=arm,
                        item=str(index),
                        slice=slices[index] if slices else "",
                        **result,
                    )
                )
    report = EvalReport(
        base_sha256="b" * 64,
        candidate_sha256="c" * 64,
        champion=crowned,
        device="cpu",
        measurements=tuple(measurements),
    )
    return report, items


def plain(report: EvalReport, arm: str, **values: float | None) -> EvalReport:
    """The report with figures that have no items; ``__`` stands for a dot in a name."""
    added = tuple(
        Measurement(
            metric=name.replace("__", "."),
            arm=arm,
            value=value,
            unit="",
            higher_is_better=name.startswith("decode"),
        )
        for name, value in values.items()
    )
    return report.model_copy(update={"measurements": report.measurements + added})


def judge(given: Evidence, *rules: GateRule, **policy: object) -> GateDecision:
    return decide(*given, GatePolicy(rules=rules, **policy), NOW)


def only(given: Evidence, **rule: object) -> Check:
    """The one check that one rule comes to."""
    (check,) = judge(given, GateRule(**rule)).checks
    return check
