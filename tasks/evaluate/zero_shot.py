"""A zero-shot task on the user's rows: the row's format is checked here, all else is lm-eval's."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from layerwright.tasks.errors import InputError
from layerwright.tasks.evaluate.arms import Arms
from layerwright.tasks.evaluate.base import Figure, Metric
from layerwright.tasks.evaluate.harness_figures import TaskRun, task_figure
from layerwright.tasks.evaluate.harness_runs import bundled_tasks, run_tasks
from layerwright.tasks.recipe.data import TextForm
from layerwright.tasks.records import read_records

Answer = Annotated[str, StringConstraints(pattern=r"\S")]


class Row(BaseModel):
    """A row as its publishers write it, under the names that lm-eval reads.

    A row that validates can be asked: lm-eval itself asks rows with an empty answer or without a
    right one, and counts them as wrong. Fields that are not declared are ignored.
    """

    model_config = ConfigDict(frozen=True)


class LabelledAnswers(BaseModel):
    """Answers and their labels, as in ARC and OpenBookQA."""

    text: tuple[Answer, ...]
    label: tuple[str, ...]


def check_answer_key(key: str, choices: LabelledAnswers) -> None:
    """Raises ValueError unless the key labels one of the answers."""
    if key not in choices.label[: len(choices.text)]:
        raise ValueError(f"answerKey {key!r} is none of {', '.join(choices.label)}")


class ZeroShot(Metric):
    """A task of lm-eval, without examples: its prompts, its tokens and its figures.

    ``acc``: share of questions whose right answer has the largest log-likelihood (a sum over its
    tokens). ``acc_norm``: the same with each divided by the answer's characters. A tier takes
    ``acc_norm`` for the task where there is one.

    Attributes:
        texts: names under ``data``, each with ``form: items``; the figures bear their names.
        limit: the first so many rows of each; all where left out.
        slice_by: a field of the rows, whose values are the slices.
    """

    form: ClassVar[TextForm] = "items"
    folder: ClassVar[str]  # in lm_eval/tasks
    task: ClassVar[str]
    row: ClassVar[type[Row]]
    # lm-eval's figure, and its name here, with {} for the text
    figures: ClassVar[Mapping[str, str]] = {"acc": "task.{}.acc", "acc_norm": "task.{}.acc_norm"}

    texts: Annotated[tuple[str, ...], Field(min_length=1)]
    limit: Annotated[int, Field(gt=0)] | None = None
    slice_by: str | None = None

    def names(self) -> tuple[str, ...]:
        return tuple(name.format(text) for text in self.texts for name in self.figures.values())

    def needed_texts(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.texts))

    def check_items(self, folders: Mapping[str, Path]) -> None:
        for text in self.texts:
            deque(self._rows(folders[text], text), maxlen=0)  # only to be read

    def estimate_tokens(self) -> int:
        return len(self.texts) * (self.limit or 1000) * 4 * 50  # four answers of fifty tokens

    def measure(self, arms: Arms) -> Iterator[Figure]:
        for text in self.texts:
            read = list(self._rows(arms.texts.folders[text], text))
            rows, slices = [row for row, _ in read], [part for _, part in read]
            for arm in arms.names:
                [kept] = arms.remembered(
                    arm,
                    self.name,
                    [text, self.limit],
                    [_over_rows(self.task, rows)],
                    partial(
                        run_tasks,
                        tokenizer=arms.texts.tokenizer,
                        manager_of=lambda _: bundled_tasks(self.folder),
                        seed=arms.seed_of(self.name),
                        answers=arms.folder(arm) / "harness-answers",
                    ),
                    what=f"{arm}: {text}",
                )
                run = TaskRun.model_validate(kept)
                for figure, name in self.figures.items():
                    metric = name.format(text)
                    yield task_figure(metric, arm, run, figure, arms.seed_of(metric), slices)

    def _rows(self, folder: Path, text: str) -> Iterator[tuple[dict[str, Any], str]]:
        """The rows under lm-eval's names, each with its slice.

        Raises:
            InputError: with file, line and field.
        """
        for record in islice(read_records(folder, text), self.limit):
            try:
                row = self.row.model_validate(record.row)
            except ValidationError as error:
                first = error.errors()[0]
                field = ".".join(map(str, first["loc"]))
                raise InputError(
                    f"this row of {text!r} is not a question in {self.name}'s format: "
                    f"{first['msg']}",
                    where=f"{record.at}: {field}" if field else record.at,
                    remedy="docs/evaluation.md lists the fields of each format",
                ) from error
            if self.slice_by and self.slice_by not in record.row:
                raise InputError(
                    f"this row of {text!r} has no field {self.slice_by!r} to slice by",
                    where=record.at,
                    expected=f"one of {', '.join(map(str, record.row))}",
                )
            part = str(record.row[self.slice_by]) if self.slice_by else ""
            yield row.model_dump(mode="json", by_alias=True), part


def _over_rows(task: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """lm-eval's task with these rows in place of its own data."""

    def dataset(**told: object) -> dict[str, Any]:
        from datasets import Dataset

        return {"validation": Dataset.from_list(rows)}

    splits = {"training_split": None, "validation_split": "validation", "test_split": None}
    member = {"task": task, "custom_dataset": dataset, "fewshot_split": None, **splits}
    return {"group": "rows", "task": [member]}  # only a group's members take changes to a task
