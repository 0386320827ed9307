"""What lm-eval says of a task: its figures with their items, and as measurements of ours."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from layerwright.tasks.contracts.base import Contract
from layerwright.tasks.contracts.evaluation import Aggregate, Arm
from layerwright.tasks.evaluate.base import Figure, measured
from layerwright.tasks.evaluate.scoring import Item, scored


class TaskItem(Contract):
    """One item of a task; ``value`` None where a likelihood was no number."""

    task: str
    item: int
    value: float | None


class TaskFigure(Contract):
    """``items`` where the figure is an aggregate of them; else lm-eval's ``value`` alone."""

    higher_is_better: bool
    items: tuple[TaskItem, ...] = ()
    aggregate: Aggregate = "mean"
    value: float | None = None


class TaskRun(Contract):
    """A task's figures by ``<figure>,<filter>``; or none, and the problem."""

    figures: dict[str, TaskFigure] = {}
    problem: str = ""

    def find(self, figure: str) -> TaskFigure | None:
        """A figure with its filter, or without: then the one of no filter, or the only one."""
        for name in (figure, f"{figure},none"):
            if name in self.figures:
                return self.figures[name]
        filtered = [f for name, f in self.figures.items() if name.split(",")[0] == figure]
        return filtered[0] if len(filtered) == 1 else None


def figures_of(task: str | dict[str, Any], found: Mapping[str, Any]) -> dict[str, TaskFigure]:
    """The figures of a task, or of a group's tasks together."""
    given: dict[str, dict[str, list[Mapping[str, Any]]]] = {}  # samples by figure and task
    for part, samples in found["samples"].items():
        for sample in sorted(samples, key=lambda sample: sample["doc_id"]):
            for metric in sample["metrics"]:
                name = f"{metric},{sample['filter']}"
                given.setdefault(name, {}).setdefault(part, []).append(sample)
    figures: dict[str, TaskFigure] = {}
    for name, by_task in given.items():
        metric = name.split(",")[0]
        results, directions = found["results"], found["higher_is_better"]
        aggregates = {
            _aggregate(found["configs"][part], metric, results[part][name], by_task[part])
            for part in by_task
        }
        aggregate = aggregates.pop() if len(aggregates) == 1 else None
        total = None if aggregate or isinstance(task, dict) else results.get(task, {}).get(name)
        sign = -1 if aggregate == "exp_mean" else 1
        figures[name] = TaskFigure(
            higher_is_better=all(directions[part].get(metric) is not False for part in by_task),
            items=tuple(
                TaskItem(task=part, item=sample["doc_id"], value=_value(sample, metric, sign))
                for part, samples in by_task.items()
                for sample in samples
            )
            if aggregate
            else (),
            aggregate=aggregate or "mean",
            value=total if isinstance(total, int | float) and math.isfinite(total) else None,
        )
    return figures


def _aggregate(
    config: Mapping[str, Any], metric: str, total: Any, samples: Sequence[Mapping[str, Any]]
) -> Aggregate | None:
    """How lm-eval made a task's figure from its items; None for a way that is not one of ours."""
    declared = {entry["metric"]: entry.get("aggregation") for entry in config["metric_list"]}
    if declared.get(metric) == "perplexity":  # exp of the mean of -log p
        return "exp_mean"
    values = [sample[metric] for sample in samples]
    if not all(isinstance(value, int | float) for value in [total, *values]):
        return None
    mean = sum(values) / len(values)
    return "mean" if math.isclose(total, mean, rel_tol=1e-9, abs_tol=1e-12) else None


def _value(sample: Mapping[str, Any], metric: str, sign: int) -> float | None:
    """An item's figure; None where it follows from a likelihood that is no number."""
    answers = (answer for responses in sample["resps"] for answer in responses)
    said = [number for answer in answers for number in _numbers(answer)]
    return sign * float(sample[metric]) if all(map(math.isfinite, said)) else None


def _numbers(answer: Any) -> list[float]:
    """Of an answer: a log-likelihood and whether it is greedy; of a text none."""
    parts = answer if isinstance(answer, list | tuple) else [answer]
    return [part for part in parts if isinstance(part, int | float)]


def task_figure(
    metric: str,
    arm: Arm,
    run: TaskRun,
    name: str,
    seed: int,
    slices: Sequence[str] | None = None,
) -> Figure:
    """One figure of a run as a measurement with its items.

    Args:
        name: lm-eval's name of the figure.
        seed: of the bootstrap.
        slices: of each item; where left out, the task's name if there are several tasks.
    """
    found = run.find(name)
    if found is None:
        known = ", ".join(run.figures)
        problem = run.problem or f"the task has no single figure {name!r}; it has {known}"
        return measured(
            metric, arm, math.nan, unit="share", higher_is_better=True, not_finite=problem
        )
    values = [item.value for item in found.items] or [found.value]
    is_share = found.higher_is_better and all(v is None or 0 <= v <= 1 for v in values)
    unit = "perplexity" if found.aggregate == "exp_mean" else "share" if is_share else "score"
    kind = {"unit": unit, "higher_is_better": found.higher_is_better}
    if not found.items:
        total = math.nan if found.value is None else found.value
        return measured(metric, arm, total, **kind, detail="summed up by lm-eval, without items")
    several = len({item.task for item in found.items}) > 1
    binary = is_share and all(value in (None, 0, 1) for value in values)
    items = [
        Item(
            f"{item.task} {item.item}" if several else f"item {item.item}",
            math.nan if item.value is None else bool(item.value) if binary else item.value,
            slice=slices[item.item] if slices else item.task if several else "",
        )
        for item in found.items
    ]
    lost = values.count(None)
    return scored(
        metric,
        arm,
        items,
        **kind,
        seed=seed,
        aggregate=found.aggregate,
        detail=f"lm-eval {version('lm-eval')}, {len(items):,} items",
        not_finite=f"a likelihood is not finite in {lost} of {len(items)} items",
    )
