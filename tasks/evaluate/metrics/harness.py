"""Any task of lm-eval, its own or the user's, on every arm."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Annotated, Any, ClassVar

from pydantic import Field

from layerwright.tasks.evaluate.arms import Arms
from layerwright.tasks.evaluate.base import Figure, Metric
from layerwright.tasks.evaluate.harness_figures import TaskRun, task_figure
from layerwright.tasks.evaluate.harness_runs import all_tasks, run_tasks
from layerwright.tasks.recipe.data import TextForm


class Harness(Metric):
    """``harness.<task>.<figure>``: what lm-eval (EleutherAI) says of each task, arm by arm.

    Every item's figure is kept. A group's items (``mmlu``, ``ruler``, ``longbench``) are those of
    all its tasks, each a slice, and count alike. A task that cannot be run, for want of data for
    instance, gives measurements without a value that say why.

    Attributes:
        tasks: names that lm-eval knows, or that ``definitions`` has.
        figures: which of a task's figures to take, as ``acc``, or ``exact_match,strict-match``
            with its filter.
        definitions: a name under ``data`` with ``form: files``: the user's own task files (YAML,
            with JSONL and functions beside them). Paths in them start at this folder.
        limit: the first so many items of each task.
        shots: examples before each question; the task's own number where left out.
        metadata: what tasks that generate their own data are told, as ``max_seq_lengths`` of RULER;
            the tokenizer's folder is told besides.
        batch: items at once; where left out, what memory holds.
    """

    name: ClassVar[str] = "harness"
    form: ClassVar[TextForm] = "files"

    tasks: Annotated[tuple[str, ...], Field(min_length=1)]
    figures: Annotated[tuple[str, ...], Field(min_length=1)] = ("acc",)
    definitions: str | None = None
    limit: Annotated[int, Field(gt=0)] | None = None
    shots: Annotated[int, Field(ge=0)] | None = None
    metadata: dict[str, Any] = {}
    batch: Annotated[int, Field(gt=0)] | None = None

    def names(self) -> tuple[str, ...]:
        return tuple(f"harness.{task}.{figure}" for task in self.tasks for figure in self.figures)

    def needed_texts(self) -> tuple[str, ...]:
        return (self.definitions,) if self.definitions else ()

    def estimate_tokens(self) -> int:
        return len(self.tasks) * (self.limit or 1000) * 4 * 50  # four answers of fifty tokens

    def measure(self, arms: Arms) -> Iterator[Figure]:
        folder = arms.texts.folders[self.definitions] if self.definitions else None
        manager_of = all_tasks(folder, arms.texts.tokenizer, self.metadata)
        for arm in arms.names:
            runs = arms.remembered(
                arm,
                self.name,
                [self.tasks, self.definitions, self.limit, self.shots, self.metadata],
                self.tasks,
                partial(
                    run_tasks,
                    tokenizer=arms.texts.tokenizer,
                    manager_of=manager_of,
                    seed=arms.seed_of(self.name),
                    answers=arms.folder(arm) / "harness-answers",
                    definitions=folder,
                    limit=self.limit,
                    shots=self.shots,
                    batch=self.batch,
                ),
                what=f"{arm}: lm-eval",
            )
            for task, run in zip(self.tasks, map(TaskRun.model_validate, runs), strict=True):
                for figure in self.figures:
                    metric = f"harness.{task}.{figure}"
                    yield task_figure(metric, arm, run, figure, arms.seed_of(metric))
