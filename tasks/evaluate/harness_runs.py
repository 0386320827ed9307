"""Run tasks of lm-eval on a model, and convert its results to figures with items."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import chdir, nullcontext
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelerate.utils.memory import should_reduce_batch_size
from transformers import PreTrainedTokenizerBase

from layerwright.tasks.contracts.base import Contract
from layerwright.tasks.contracts.evaluation import Aggregate, Arm
from layerwright.tasks.evaluate.base import Figure, Item, measured, scored
from layerwright.tasks.hybrid.modeling import HybridForCausalLM

if TYPE_CHECKING:  # importing lm-eval takes seconds, so functions import it when they run
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

LOGIT_BYTES = 250_000_000  # limit of the fp32 logits of a forward on the CPU; lm-eval copies them
MOST_ROWS = 32  # limit of the rows of a forward on the CPU


def run_tasks(
    model: HybridForCausalLM,
    tasks: Sequence[str | dict[str, Any]],
    *,
    tokenizer: PreTrainedTokenizerBase,
    manager_of: Callable[[Any], TaskManager],
    seed: int,
    answers: Path,
    definitions: Path | None = None,
    limit: int | None = None,
    shots: int | None = None,
    batch: int | None = None,
) -> Iterator[dict[str, Any]]:
    """Yield a `TaskRun` for every task, as JSON.

    Args:
        tasks: names or definitions.
        manager_of: returns the TaskManager that has a task.
        answers: file prefix of lm-eval's cache of model answers, from which a killed run resumes.
        definitions: folder that relative paths in task files start from.
        limit: evaluate only the first items of a task, this many; None: all.
        shots: number of few-shot examples; None: the task's own number.
        batch: rows of a forward; None: as many as memory holds.
    """
    from lm_eval import simple_evaluate

    lm = _lm(model, tokenizer, batch)
    seeds = ("random_seed", "numpy_random_seed", "torch_random_seed", "fewshot_random_seed")
    answers, definitions = answers.resolve(), definitions and definitions.resolve()
    for task in tasks:
        try:
            with chdir(definitions) if definitions else nullcontext():
                results = simple_evaluate(
                    lm,
                    tasks=[task],
                    task_manager=manager_of(task),
                    num_fewshot=shots,
                    limit=limit,
                    use_cache=str(answers),
                    bootstrap_iters=0,
                    **dict.fromkeys(seeds, seed),
                )
        except Exception as error:
            if should_reduce_batch_size(error):  # out of memory, which is not the task's fault
                raise
            name = task["group"] if isinstance(task, dict) else task
            reason = " ".join(str(error).split())[:300]
            run = TaskRun(problem=f"lm-eval cannot run {name!r}: {type(error).__name__}: {reason}")
        else:
            run = TaskRun(figures=figures_of(task, results))
        yield run.model_dump(mode="json")


def _lm(model: HybridForCausalLM, tokenizer: PreTrainedTokenizerBase, batch: int | None) -> HFLM:
    """Wrap the model for lm-eval, with as many rows of a forward as memory holds."""
    from lm_eval.models.huggingface import HFLM

    class CpuLM(HFLM):
        """Limits the rows of a forward by the bytes of their logits, which cover whole rows."""

        def _loglikelihood_tokens(self, requests: list, *args: Any, **options: Any) -> list:
            longest = max((len(context) + len(end) for _, context, end in requests), default=1)
            row_bytes = 4 * longest * model.config.vocab_size
            self.batch_size_per_gpu = max(1, min(MOST_ROWS, LOGIT_BYTES // row_bytes))
            try:
                return super()._loglikelihood_tokens(requests, *args, **options)
            finally:
                self.batch_size_per_gpu = 1

    bounded = not batch and model.device.type == "cpu"
    kind, rows = (CpuLM, 1) if bounded else (HFLM, batch or "auto")
    return kind(pretrained=model, tokenizer=tokenizer, batch_size=rows)


def bundled_tasks(folder: str) -> TaskManager:
    """The tasks of a folder of lm-eval; reading all of its folders takes half a minute."""
    from lm_eval.tasks import TaskManager

    path = files("lm_eval") / "tasks" / folder
    return TaskManager(include_path=str(path), include_defaults=False)


def all_tasks(
    definitions: Path | None, tokenizer: PreTrainedTokenizerBase, metadata: Mapping[str, Any]
) -> Callable[[str], TaskManager]:
    """A function from a task's name to the TaskManager that has it.

    It searches ``definitions``, the folder of the user's task files, then lm-eval's own tasks,
    which are read only if needed. Tasks that generate their data get ``metadata`` and the
    tokenizer's folder.
    """
    from lm_eval.tasks import TaskManager

    source = tokenizer.name_or_path
    location = {"tokenizer": str(Path(source).resolve())} if source else {}

    @cache
    def manager(defaults: bool) -> TaskManager:
        return TaskManager(
            include_path=definitions and definitions.resolve(),
            include_defaults=defaults,
            metadata=location | dict(metadata),
        )

    def manager_of(task: str) -> TaskManager:
        is_users = definitions is not None and task in manager(False).all_subtasks
        return manager(not is_users)

    return manager_of


class TaskItem(Contract):
    """The result of an item; ``value`` is None if a likelihood is not finite."""

    task: str
    item: int
    value: float | None


class TaskFigure(Contract):
    """A figure of a task."""

    higher_is_better: bool
    items: tuple[TaskItem, ...] = ()  # empty if ``aggregate`` does not compute the figure from them
    aggregate: Aggregate = "mean"
    value: float | None = None  # lm-eval's value, if there are no items


class TaskRun(Contract):
    """The figures of a task by ``<figure>,<filter>``, or the problem that prevented its run."""

    figures: dict[str, TaskFigure] = {}
    problem: str = ""

    def find(self, figure: str) -> TaskFigure | None:
        """A figure by its name; without a filter: that of the filter ``none``, or the only one."""
        for name in (figure, f"{figure},none"):
            if name in self.figures:
                return self.figures[name]
        filtered = [f for name, f in self.figures.items() if name.split(",")[0] == figure]
        return filtered[0] if len(filtered) == 1 else None


def figures_of(task: str | dict[str, Any], output: Mapping[str, Any]) -> dict[str, TaskFigure]:
    """Return the figures of a task, or of all tasks of a group, from lm-eval's output."""
    samples_of: dict[str, dict[str, list[Mapping[str, Any]]]] = {}  # by figure and task
    for part, samples in output["samples"].items():
        for sample in sorted(samples, key=lambda sample: sample["doc_id"]):
            for metric in sample["metrics"]:
                name = f"{metric},{sample['filter']}"
                samples_of.setdefault(name, {}).setdefault(part, []).append(sample)
    results, directions = output["results"], output["higher_is_better"]
    figures: dict[str, TaskFigure] = {}
    for name, by_task in samples_of.items():
        metric = name.split(",")[0]
        aggregates = {
            _aggregate(output["configs"][part], metric, results[part][name], samples)
            for part, samples in by_task.items()
        }
        aggregate = aggregates.pop() if len(aggregates) == 1 else None
        total = None if aggregate or isinstance(task, dict) else results.get(task, {}).get(name)
        sign = -1 if aggregate == "exp_mean" else 1
        items = [
            TaskItem(task=part, item=sample["doc_id"], value=_value(sample, metric, sign))
            for part, samples in by_task.items()
            for sample in samples
        ]
        figures[name] = TaskFigure(
            higher_is_better=all(directions[part].get(metric) is not False for part in by_task),
            items=tuple(items) if aggregate else (),
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
    for answer in chain.from_iterable(sample["resps"]):
        # a log-likelihood and whether it is greedy, a log-likelihood alone, or a generated text
        for part in answer if isinstance(answer, list | tuple) else [answer]:
            if isinstance(part, int | float) and not math.isfinite(part):
                return None
    return sign * float(sample[metric])


def task_figure(
    metric: str, arm: Arm, run: TaskRun, name: str, seed: int, slices: Sequence[str] | None = None
) -> Figure:
    """The figure ``metric`` of a run, with its items; ``name`` is lm-eval's name of it.

    Args:
        slices: slice of each item; None: the name of its task, if there are several tasks.
    """
    figure = run.find(name)
    if figure is None:
        known = ", ".join(run.figures)
        problem = run.problem or f"the task has no single figure {name!r}; it has {known}"
        return measured(metric, arm, math.nan, "share", higher_is_better=True, not_finite=problem)
    better = figure.higher_is_better
    values = [item.value for item in figure.items] or [figure.value]
    is_share = better and all(v is None or 0 <= v <= 1 for v in values)
    unit = "perplexity" if figure.aggregate == "exp_mean" else "share" if is_share else "score"
    if not figure.items:
        value = math.nan if figure.value is None else figure.value
        detail = "aggregated by lm-eval, without items"
        return measured(metric, arm, value, unit, higher_is_better=better, detail=detail)
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
    return scored(
        metric,
        arm,
        items,
        unit,
        seed,
        higher_is_better=better,
        aggregate=figure.aggregate,
        detail=f"lm-eval {version('lm-eval')}, {len(items):,} items",
        not_finite=f"a likelihood is not finite in {values.count(None)} of {len(items)} items",
    )
