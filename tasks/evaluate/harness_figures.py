"""Convert lm-eval's results of a task to figures with items."""

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
    """The result of an item; ``value`` is None if a likelihood is not finite."""

    task: str
    item: int
    value: float | None


class TaskFigure(Contract):
    """A figure of a task.

    Attributes:
        items: the item results, if ``aggregate`` computes the figure from them; else empty.
        value: lm-eval's value, if there are no items.
    """

    higher_is_better: bool
    items: tuple[TaskItem, ...] = ()
    aggregate: Aggregate = "mean"
    value: float | None = None


class TaskRun(Contract):
    """The figures of a task by ``<figure>,<filter>``, or the problem that prevented its run."""

    figures: dict[str, TaskFigure] = {}
    problem: str = ""

    def find(self, figure: str) -> TaskFigure | None:
        """Return a figure by its name, with or without its filter; None if there is no such figure.

        A name without a filter means the filter ``none``, or else the only filter of the figure.
        """
        for name in (figure, f"{figure},none"):
            if name in self.figures:
                return self.figures[name]
        filtered = [f for name, f in self.figures.items() if name.split(",")[0] == figure]
        return filtered[0] if len(filtered) == 1 else None


def figures_of(task: str | dict[str, Any], output: Mapping[str, Any]) -> dict[str, TaskFigure]:
    """Return the figures of a task, or of all tasks of a group together.

    Args:
        task: name or definition of the task or group.
        output: of lm-eval's `simple_evaluate`.
    """
    samples_of: dict[str, dict[str, list[Mapping[str, Any]]]] = {}  # by figure and task
    for part, samples in output["samples"].items():
        for sample in sorted(samples, key=lambda sample: sample["doc_id"]):
            for metric in sample["metrics"]:
                name = f"{metric},{sample['filter']}"
                samples_of.setdefault(name, {}).setdefault(part, []).append(sample)
    figures: dict[str, TaskFigure] = {}
    for name, by_task in samples_of.items():
        metric = name.split(",")[0]
        results, directions = output["results"], output["higher_is_better"]
        aggregates = {
            _aggregate(output["configs"][part], metric, results[part][name], by_task[part])
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
    """Return how lm-eval aggregates the items of a figure; None if we have no such aggregate."""
    declared = {entry["metric"]: entry.get("aggregation") for entry in config["metric_list"]}
    if declared.get(metric) == "perplexity":  # exp of the mean of -log p
        return "exp_mean"
    values = [sample[metric] for sample in samples]
    if not all(isinstance(value, int | float) for value in [total, *values]):
        return None
    mean = sum(values) / len(values)
    return "mean" if math.isclose(total, mean, rel_tol=1e-9, abs_tol=1e-12) else None


def _value(sample: Mapping[str, Any], metric: str, sign: int) -> float | None:
    """Return the value of an item; None if one of its likelihoods is not finite."""
    answers = (answer for responses in sample["resps"] for answer in responses)
    numbers = [number for answer in answers for number in _numbers(answer)]
    return sign * float(sample[metric]) if all(map(math.isfinite, numbers)) else None


def _numbers(answer: Any) -> list[float]:
    """The numbers of an answer: log-likelihood and greedy flag; none for a generated text."""
    parts = answer if isinstance(answer, list | tuple) else [answer]
    return [part for part in parts if isinstance(part, int | float)]


def task_figure(
    metric: str, arm: Arm, run: TaskRun, name: str, seed: int, slices: Sequence[str] | None = None
) -> Figure:
    """Return a figure of a run, with its items.

    Args:
        metric: name of the figure here.
        name: lm-eval's name of the figure.
        seed: seed of the bootstrap.
        slices: slice of each item; None: the name of its task, if there are several tasks.
    """
    figure = run.find(name)
    if figure is None:
        known = ", ".join(run.figures)
        problem = run.problem or f"the task has no single figure {name!r}; it has {known}"
        return measured(
            metric, arm, math.nan, unit="share", higher_is_better=True, not_finite=problem
        )
    values = [item.value for item in figure.items] or [figure.value]
    is_share = figure.higher_is_better and all(v is None or 0 <= v <= 1 for v in values)
    unit = "perplexity" if figure.aggregate == "exp_mean" else "share" if is_share else "score"
    if not figure.items:
        return measured(
            metric,
            arm,
            math.nan if figure.value is None else figure.value,
            unit=unit,
            higher_is_better=figure.higher_is_better,
            detail="aggregated by lm-eval, without items",
        )
    several = len({item.task for item in figure.items}) > 1
    binary = is_share and all(value in (None, 0, 1) for value in values)
    items = [
        Item(
            f"{item.task} {item.item}" if several else f"item {item.item}",
            math.nan if item.value is None else bool(item.value) if binary else item.value,
            slice=slices[item.item] if slices else item.task if several else "",
        )
        for item in figure.items
    ]
    invalid = values.count(None)
    return scored(
        metric,
        arm,
        items,
        unit=unit,
        higher_is_better=figure.higher_is_better,
        seed=seed,
        aggregate=figure.aggregate,
        detail=f"lm-eval {version('lm-eval')}, {len(items):,} items",
        not_finite=f"a likelihood is not finite in {invalid} of {len(items)} items",
    )
