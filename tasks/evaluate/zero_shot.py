"""Zero-shot tasks of lm-eval on the user's rows: check the rows' format, and run lm-eval."""

from collections import deque
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, Field, ValidationError, model_validator

from layerwright.tasks.contracts.evaluation import Presentation
from layerwright.tasks.errors import InputError
from layerwright.tasks.evaluate.arms import Arms
from layerwright.tasks.evaluate.base import Count, Figure, TextMetric, shown
from layerwright.tasks.evaluate.harness_runs import TaskRun, bundled_tasks, run_tasks, task_figure
from layerwright.tasks.records import read_records

AnswerText = Annotated[str, Field(pattern=r"\S")]


class Row(BaseModel, frozen=True):
    """A row in the format of the task's publishers, with the field names that lm-eval reads.

    Rows are validated here because lm-eval does not reject a row with an empty answer or without a
    right answer, but counts it as wrong. Undeclared fields are ignored.
    """


class LabelledAnswers(BaseModel):
    text: tuple[AnswerText, ...]
    label: tuple[str, ...]


class Labelled(Row):
    """A row with labelled answers and the label of the right one, as in ARC and OpenBookQA."""

    strips: ClassVar[bool] = False  # whether lm-eval ignores spaces before the label
    choices: LabelledAnswers
    answer: str = Field(alias="answerKey")

    @model_validator(mode="after")
    def _has_a_right_answer(self) -> Self:
        key, choices = self.answer.lstrip() if self.strips else self.answer, self.choices
        if key not in choices.label[: len(choices.text)]:
            raise ValueError(f"answerKey {key!r} is not one of {', '.join(choices.label)}")
        return self


class ZeroShot(TextMetric):
    """A task of lm-eval without few-shot examples; prompts, tokens and figures are lm-eval's.

    - ``acc``: share of questions whose right answer has the largest log-likelihood, summed over
      its tokens.
    - ``acc_norm``: the same with each log-likelihood divided by the characters of the answer. The
      tiers of a gate use ``acc_norm`` if the task has it.

    docs/evaluation.md lists the fields of each task's rows.

    Attributes:
        folder: folder of the task in lm_eval/tasks, by default the metric's name.
        task: lm-eval's name of the task, by default the metric's.
        row: format of the rows.
        figures: lm-eval's name of each figure -> its name here, with {} for the text.
        texts: names under ``data``, each with ``form: items``; they are part of the figures' names.
        limit: evaluate only the first rows of each text, this many; None: all.
        slice_by: field of the rows whose values are the slices.
    """

    form = "items"
    folder: ClassVar[str] = ""
    task: ClassVar[str] = ""
    row: ClassVar[type[Row]]
    figures: ClassVar[Mapping[str, str]] = {"acc": "task.{}.acc", "acc_norm": "task.{}.acc_norm"}
    presentation: ClassVar[Mapping[str, Presentation]] = {
        "task": shown("Zero-shot tasks", "share of right answers; higher is better")
    }

    limit: Count | None = None
    slice_by: str | None = None

    def names(self) -> tuple[str, ...]:
        return tuple(name.format(text) for text in self.texts for name in self.figures.values())

    def check_items(self, folders: Mapping[str, Path]) -> None:
        for text in self.texts:
            deque(self._rows(folders[text], text), maxlen=0)  # reads and checks every row

    def estimate_tokens(self) -> int:
        return len(self.texts) * (self.limit or 1000) * 4 * 50  # four answers of fifty tokens

    def measure(self, arms: Arms) -> Iterator[Figure]:
        run = partial(
            run_tasks,
            tokenizer=arms.texts.tokenizer,
            manager_of=lambda _: bundled_tasks(self.folder or self.name),
            seed=arms.seed_of(self.name),
        )
        for text in self.texts:
            pairs = list(self._rows(arms.texts.folders[text], text))
            task = [_with_rows(self.task or self.name, [row for row, _ in pairs])]
            slices = [name for _, name in pairs]
            for arm in arms.names:
                compute = partial(run, answers=arms.folder(arm) / "harness-answers")
                options, what = [text, self.limit], f"{arm}: {text}"
                [found] = arms.item_results(arm, self.name, options, task, compute, what=what)
                for figure, name in self.figures.items():
                    metric, result = name.format(text), TaskRun.model_validate(found)
                    yield task_figure(metric, arm, result, figure, arms.seed_of(metric), slices)

    def _rows(self, folder: Path, text: str) -> Iterator[tuple[dict[str, Any], str]]:
        """Yield the rows with lm-eval's field names, each with the name of its slice.

        Raises:
            InputError: a row is not valid; names file, line and field.
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
            slice_name = str(record.row[self.slice_by]) if self.slice_by else ""
            yield row.model_dump(mode="json", by_alias=True), slice_name


def _with_rows(task: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The definition of lm-eval's task with its data replaced by these rows."""

    def dataset(**_metadata: object) -> dict[str, Any]:
        from datasets import Dataset

        return {"validation": Dataset.from_list(rows)}

    splits = {"training_split": None, "validation_split": "validation", "test_split": None}
    member = {"task": task, "custom_dataset": dataset, "fewshot_split": None, **splits}
    return {"group": "rows", "task": [member]}  # lm-eval overrides tasks only inside a group
