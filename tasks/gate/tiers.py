"""The tiers `lossless`, `standard` and `aggressive`, translated into rules for an evaluation."""

from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from layerwright.tasks.contracts.evaluation import EvalReport
from layerwright.tasks.contracts.gate import Check, Tier
from layerwright.tasks.gate.checks import count_check
from layerwright.tasks.recipe.gate import GateRule


class Floors(NamedTuple):
    """The minimum recovery (candidate's score over the base's) that a tier demands."""

    mean: float  # of the mean over all tasks, and of every perplexity
    worst: float  # of each task
    no_loss: bool = False  # no task may have a significant loss


FLOORS: dict[Tier, Floors] = {
    "lossless": Floors(mean=0.99, worst=0.99, no_loss=True),
    "standard": Floors(mean=0.95, worst=0.90),
    "aggressive": Floors(mean=0.90, worst=0.80),
}
# metrics that every tier requires, and how many of each
REQUIRED_METRICS = {
    "perplexity.*": 2,
    "recall.*": 1,
    "generation.*": 1,
    "length_ratio.*": 1,
    "kv_bytes.*": 1,
    "prefill_ms.*": 1,
    "decode_tokens_per_s.*": 1,
}
TASKS = ("recall.*", "generation.*")  # tasks of any unit, also if the base has no value
SECONDARY = ("exact_match.*",)  # further scores of tasks that already have one
LENGTH_RATIOS = (0.9, 1.1)  # length of generated text over the base's (MLPerf's limits)
TIMING_NOISE = 0.05  # medians of the same model vary by this much between runs


class Application(NamedTuple):
    """A rule and the metrics that it applies to; a rule without metrics fails."""

    rule: GateRule
    metrics: tuple[str, ...]


def tier_rules(tier: Tier, report: EvalReport, significance: float) -> Iterator[Application]:
    """The tier's rules for the metrics of a report.

    Recovery of each task and of their mean, and the ratio of each perplexity, are judged by their
    one-sided confidence bounds. Output lengths must be close to the base's; memory and speed must
    not be worse.
    """
    floors, tasks = FLOORS[tier], task_metrics(report)

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
        ("length_ratio.*", {"min": LENGTH_RATIOS[0], "compare": "value"}),
        ("length_ratio.*", {"max": LENGTH_RATIOS[1], "compare": "value"}),
        ("kv_bytes.*", {"max": 1.0}),
        ("prefill_ms.*", {"max": 1 + TIMING_NOISE}),
        ("decode_tokens_per_s.*", {"min": 1 - TIMING_NOISE}),
    ):
        yield on(matching_metrics(report, pattern), metric=pattern, **rule)


def task_metrics(report: EvalReport) -> tuple[str, ...]:
    """The metrics that are tasks: each scores an arm alone, as a share, so that it has a recovery.

    Multiple choice has two scores of the same items, ``acc`` and ``acc_norm``. Only ``acc_norm``
    counts if both are there, so that no task counts twice.
    """

    def named(metric: str, patterns: tuple[str, ...]) -> bool:
        return any(fnmatchcase(metric, pattern) for pattern in patterns)

    scored = dict.fromkeys(
        m.metric
        for m in report.measurements
        if not named(m.metric, SECONDARY)
        and (
            named(m.metric, TASKS) or (m.arm == "base" and m.unit == "share" and m.higher_is_better)
        )
    )
    return tuple(m for m in scored if not (m.endswith(".acc") and f"{m}_norm" in scored))


def matching_metrics(report: EvalReport, pattern: str) -> tuple[str, ...]:
    """The metrics that a glob matches, in the candidate or in an arm that it is compared with.

    The other arms count too, so that a rule fails if only the candidate lacks a metric.
    """
    names = dict.fromkeys(m.metric for m in report.measurements if m.arm != "control")
    return tuple(name for name in names if fnmatchcase(name, pattern))


def coverage_checks(report: EvalReport) -> Iterator[Check]:
    """One check per entry of ``REQUIRED_METRICS``: were enough of these metrics measured?"""
    values = report.by_arm("candidate")
    for pattern, needed in REQUIRED_METRICS.items():
        measured = [m for m, v in values.items() if v is not None and fnmatchcase(m, pattern)]
        names = f": {', '.join(measured)}" if measured else ""
        reason = f"{len(measured)} measured, at least {needed} required{names}"
        yield count_check(pattern, "measurements", len(measured), needed, reason)
