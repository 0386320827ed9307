"""Run any task of lm-eval, its own or the user's, on every arm."""

from collections.abc import Iterator
from functools import partial
from typing import Annotated, Any

from pydantic import Field

from layerwright.tasks.evaluate.arms import Arms
from layerwright.tasks.evaluate.base import Count, Figure, Metric, Names, shown
from layerwright.tasks.evaluate.harness_runs import TaskRun, all_tasks, run_tasks, task_figure


class Harness(Metric):
    """``harness.<task>.<figure>``: the figures of lm-eval (EleutherAI) for each task.

    The result of every item is stored. The items of a group (``mmlu``, ``ruler``, ``longbench``)
    are those of all its tasks, with equal weight; each task is a slice. A task that cannot run, for
    instance because its data is missing, gives measurements without a value, with the reason.

    Attributes:
        tasks: names of lm-eval's tasks, or of tasks in ``definitions``.
        figures: the figures to report, such as ``acc``, or ``exact_match,strict-match`` with a
            filter.
        definitions: a name under ``data`` with ``form: files``: the user's task files (YAML, with
            their JSONL data and functions). Paths in them are relative to this folder.
        limit: evaluate only the first items of each task, this many; None: all.
        shots: number of few-shot examples; None: the task's own number.
        metadata: passed to tasks that generate their data, such as ``max_seq_lengths`` for RULER;
            the tokenizer's folder is added.
        batch: rows of a forward; None: as many as memory holds.
    """

    name = "harness"
    presentation = {"harness": shown("lm-eval", "lm-eval's score")}
    form = "files"

    tasks: Names
    figures: Names = ("acc",)
    definitions: str | None = None
    limit: Count | None = None
    shots: Annotated[int, Field(ge=0)] | None = None
    metadata: dict[str, Any] = {}
    batch: Count | None = None

    def names(self) -> tuple[str, ...]:
        return tuple(f"harness.{task}.{figure}" for task in self.tasks for figure in self.figures)

    def needed_texts(self) -> tuple[str, ...]:
        return (self.definitions,) if self.definitions else ()

    def estimate_tokens(self) -> int:
        return len(self.tasks) * (self.limit or 1000) * 4 * 50  # four answers of fifty tokens

    def measure(self, arms: Arms) -> Iterator[Figure]:
        folder = arms.texts.folders[self.definitions] if self.definitions else None
        run = partial(
            run_tasks,
            tokenizer=arms.texts.tokenizer,
            manager_of=all_tasks(folder, arms.texts.tokenizer, self.metadata),
            seed=arms.seed_of(self.name),
            definitions=folder,
            limit=self.limit,
            shots=self.shots,
            batch=self.batch,
        )
        options = [self.tasks, self.definitions, self.limit, self.shots, self.metadata]
        for arm in arms.names:
            compute = partial(run, answers=arms.folder(arm) / "harness-answers")
            what = f"{arm}: lm-eval"
            runs = arms.item_results(arm, self.name, options, self.tasks, compute, what=what)
            for task, found in zip(self.tasks, map(TaskRun.model_validate, runs), strict=True):
                for figure in self.figures:
                    metric = f"harness.{task}.{figure}"
                    yield task_figure(metric, arm, found, figure, arms.seed_of(metric))
