"""The tiers: what `lossless`, `standard` and `aggressive` mean, as rules over a report."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from layerwright.tasks.contracts.evaluation import EvalReport
from layerwright.tasks.contracts.gate import Check, Tier
from layerwright.tasks.recipe.gate import GateRule


@dataclass(frozen=True)
class Floors:
    """Recovery, the candidate's share of the base's score, that a tier asks for.

    ``mean`` over all tasks, and for every perplexity; ``worst`` for each task by itself.
    ``no_loss``: no task may have lost significantly either.
    """

    mean: float
    worst: float
    no_loss: bool = False


FLOORS: dict[Tier, Floors] = {
    "lossless": Floors(mean=0.99, worst=0.99, no_loss=True),
    "standard": Floors(mean=0.95, worst=0.90),
    "aggressive": Floors(mean=0.90, worst=0.80),
}
# what a tier never does without, and how many of it
NEEDED = {
    "perplexity.*": 2,
    "recall.*": 1,
    "generation.*": 1,
    "length_ratio.*": 1,
    "kv_bytes.*": 1,
    "prefill_ms.*": 1,
    "decode_tokens_per_s.*": 1,
}
TASKS = ("recall.*", "generation.*")  # tasks whatever their unit, missing in the base or not
OTHER_READINGS = ("exact_match.*",)  # of a task that has its figure
LENGTHS = (0.9, 1.1)  # of what is generated, against the base (MLPerf's bounds)
TIMING_NOISE = 0.05  # medians of the same model differ by so much from run to run


@dataclass(frozen=True)
class Application:
    """A rule, and the metrics of the report that it is for; none means that nothing was shown."""

    rule: GateRule
    metrics: tuple[str, ...]


def rules_of(tier: Tier, report: EvalReport, significance: float) -> Iterator[Application]:
    """The tier's rules, on the metrics that the report has.

    Every task's recovery, and their mean, by the one-sided bound of the interval; every perplexity
    by the bound of its ratio; lengths; memory and speed no worse than the base's.
    """
    floors, tasks = FLOORS[tier], tasks_of(report)

    def on(metrics: tuple[str, ...], **rule: Any) -> Application:
        return Application(GateRule(**rule), metrics)

    for task in tasks:
        yield on((task,), metric=task, min=floors.worst, on="bound")
        if floors.no_loss:
            yield on((task,), metric=task, compare="p_value", min=significance)
    if floors.mean > floors.worst:
        yield on(tasks, metric="all tasks", min=floors.mean, on="bound", across="mean")
    for pattern, rule in (
        ("perplexity.*", {"max": round(1 / floors.mean, 4), "on": "bound"}),
        ("length_ratio.*", {"min": LENGTHS[0], "compare": "value"}),
        ("length_ratio.*", {"max": LENGTHS[1], "compare": "value"}),
        ("kv_bytes.*", {"max": 1.0}),
        ("prefill_ms.*", {"max": 1 + TIMING_NOISE}),
        ("decode_tokens_per_s.*", {"min": 1 - TIMING_NOISE}),
    ):
        yield on(matching(report, pattern), metric=pattern, **rule)


def tasks_of(report: EvalReport) -> tuple[str, ...]:
    """Metrics that score an arm by itself as a share, so that a recovery means something.

    Multiple choice has two shares of the same items, ``acc`` and ``acc_norm``: the second, where
    it is there, is the task, and no task counts twice.
    """
    scored = [
        m.metric
        for m in report.measurements
        if not any(fnmatchcase(m.metric, pattern) for pattern in OTHER_READINGS)
        and (
            any(fnmatchcase(m.metric, pattern) for pattern in TASKS)
            or (m.arm == "base" and m.unit == "share" and m.higher_is_better)
        )
    ]
    once = dict.fromkeys(scored)
    return tuple(m for m in once if not (m.endswith(".acc") and f"{m}_norm" in once))


def matching(report: EvalReport, pattern: str) -> tuple[str, ...]:
    """The names that a glob matches, in the candidate or in an arm that it is compared with.

    A metric that only the candidate lacks must not pass unseen.
    """
    return tuple(
        dict.fromkeys(
            m.metric
            for m in report.measurements
            if m.arm != "control" and fnmatchcase(m.metric, pattern)
        )
    )


def breadth(report: EvalReport) -> Iterator[Check]:
    """That everything was measured which a tier never does without."""
    values = report.by_arm("candidate")
    for pattern, needed in NEEDED.items():
        shown = [m for m, v in values.items() if v is not None and fnmatchcase(m, pattern)]
        names = f": {', '.join(shown)}" if shown else ""
        yield Check(
            metric=pattern,
            rule=f"measurements >= {needed}",
            compare="value",
            value=len(shown),
            limit=needed,
            is_floor=True,
            margin=len(shown) - needed,
            passed=len(shown) >= needed,
            severity="fail",
            reason=f"{len(shown)} of at least {needed} measured{names}",
        )
