"""lm-eval run on one model: what it makes of every item of a task, or why it cannot say."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import chdir, nullcontext
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelerate.utils.memory import should_reduce_batch_size
from transformers import PreTrainedTokenizerBase

from layerwright.tasks.contracts.base import Contract
from layerwright.tasks.hybrid.modeling import HybridForCausalLM

if TYPE_CHECKING:  # lm-eval takes seconds to import, and is imported where it runs
    from lm_eval.tasks import TaskManager


class TaskItem(Contract):
    """One item of a task; ``value`` None where a likelihood was no number."""

    task: str
    item: int
    value: float | None


class TaskFigure(Contract):
    """``items`` where the figure is their mean; ``value`` alone where lm-eval sums up otherwise."""

    higher_is_better: bool
    items: tuple[TaskItem, ...] = ()
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


def run_tasks(
    model: HybridForCausalLM,
    tasks: Sequence[str],
    *,
    tokenizer: PreTrainedTokenizerBase,
    definitions: Path | None,
    limit: int | None,
    shots: int | None,
    metadata: Mapping[str, Any],
    batch: int | None,
    seed: int,
    answers: Path,
) -> Iterator[dict[str, Any]]:
    """A `TaskRun` of every task, as JSON.

    Args:
        definitions: a folder of task files, in which their relative paths begin.
        answers: where lm-eval keeps the model's answers, so that none is asked for again after a
            kill.
    """
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    on_gpu = model.device.type != "cpu"
    asked = HFLM(
        pretrained=model, tokenizer=tokenizer, batch_size=batch or ("auto" if on_gpu else 1)
    )
    seeds = ("random_seed", "numpy_random_seed", "torch_random_seed", "fewshot_random_seed")
    answers, definitions = answers.resolve(), definitions and definitions.resolve()
    source = tokenizer.name_or_path
    told = {"tokenizer": str(Path(source).resolve())} if source else {}
    manager_of = _managers(definitions, told | dict(metadata))
    for task in tasks:
        try:
            with chdir(definitions) if definitions else nullcontext():
                found = simple_evaluate(
                    asked,
                    tasks=[task],
                    task_manager=manager_of(task),
                    num_fewshot=shots,
                    limit=limit,
                    use_cache=str(answers),
                    bootstrap_iters=0,
                    **dict.fromkeys(seeds, seed),
                )
        except Exception as error:
            if should_reduce_batch_size(error):  # no fault of the task
                raise
            said = " ".join(str(error).split())[:300]
            run = TaskRun(problem=f"lm-eval cannot run {task!r}: {type(error).__name__}: {said}")
        else:
            run = TaskRun(figures=_figures(task, found))
        yield run.model_dump(mode="json")


def _managers(
    definitions: Path | None, metadata: Mapping[str, Any]
) -> Callable[[str], TaskManager]:
    """What knows a task: reading all of lm-eval's own takes long, and is done where needed."""
    from lm_eval.tasks import TaskManager

    @cache
    def manager(defaults: bool) -> TaskManager:
        return TaskManager(
            include_path=definitions, include_defaults=defaults, metadata=dict(metadata)
        )

    def of(task: str) -> TaskManager:
        own = definitions is not None and task in manager(False).all_subtasks
        return manager(not own)

    return of


def _figures(task: str, found: Mapping[str, Any]) -> dict[str, TaskFigure]:
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
        if all(_is_mean(results[part][name], metric, by_task[part]) for part in by_task):
            items = tuple(
                TaskItem(task=part, item=sample["doc_id"], value=_value(sample, metric))
                for part, samples in by_task.items()
                for sample in samples
            )
            total = None
        else:
            items, total = (), results.get(task, {}).get(name)
        figures[name] = TaskFigure(
            higher_is_better=all(directions[part].get(metric) is not False for part in by_task),
            items=items,
            value=total if isinstance(total, int | float) and math.isfinite(total) else None,
        )
    return figures


def _is_mean(total: Any, metric: str, samples: Sequence[Mapping[str, Any]]) -> bool:
    """Whether lm-eval's figure of a task is the mean of its items."""
    values = [sample[metric] for sample in samples]
    if not all(isinstance(value, int | float) for value in [total, *values]):
        return False
    return math.isclose(total, sum(values) / len(values), rel_tol=1e-9, abs_tol=1e-12)


def _value(sample: Mapping[str, Any], metric: str) -> float | None:
    """An item's figure; None where it follows from a likelihood that is no number."""
    answers = (answer for responses in sample["resps"] for answer in responses)
    said = [number for answer in answers for number in _numbers(answer)]
    return float(sample[metric]) if all(map(math.isfinite, said)) else None


def _numbers(answer: Any) -> list[float]:
    """Of an answer: a log-likelihood and whether it is greedy; of a text none."""
    parts = answer if isinstance(answer, list | tuple) else [answer]
    return [part for part in parts if isinstance(part, int | float)]
