"""The recipe: one YAML file that says everything a run does. It is data; nothing in it runs.

Component options (strategies, profilers, selectors, metrics) are checked by the components
themselves before a run starts; everything else is checked here, with file, line and field.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from tasks.compute import PLACED_STEPS, STEPS, STREAMING_STEPS, TRAINING_STEPS, Compute
from tasks.contracts import Contract, Count, FrontierBudget, Number, Positive, Share, Spec
from tasks.gate_contracts import GatePolicy
from tasks.located import Located
from tasks.promotion_contracts import ApprovalPolicy
from tasks.requalification_contracts import WatchRule
from tasks.returns import Price
from tasks.rollout_contracts import RolloutPolicy
from tasks.training_recipe import FinetuneOptions, RegularizeOptions


class ModelSource(Contract):
    """Where the base model comes from.

    ``source``: ``hf:owner/name@revision``, ``pypi:dist==version[/path]``, ``s3://bucket/prefix``
    or a local folder.
    """

    source: str = Field(min_length=1)
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"


TextForm = Literal["text", "items", "files"]


class TextSource(Contract):
    """Where a text comes from: the model's four kinds of source, or ``python-docs``.

    ``files`` are globs inside the source; ``field`` names the column or key that holds the text
    of Arrow, Parquet and JSON files (a ``messages`` field makes it chat data). ``part`` keeps the
    documents whose digest, as a fraction, falls in [low, high): disjoint parts never share one.

    ``form`` ``items`` keeps the rows of JSON, Arrow and Parquet files as they are, repeated ones
    too, for tasks with right and wrong answers; ``files`` keeps the files themselves.
    """

    source: str = Field(min_length=1)
    files: tuple[str, ...] = ("*",)
    field: str = "text"
    part: tuple[Share, Share] = (0.0, 1.0)
    form: TextForm = "text"

    @model_validator(mode="after")
    def _not_empty(self) -> TextSource:
        if self.part[0] >= self.part[1]:
            raise ValueError("a part [low, high] with low < high")
        return self


class ProfileOptions(Contract):
    text: str
    rows: Positive = 8
    row_tokens: Positive = 512
    profilers: tuple[Spec, ...]


class CostOptions(Contract):
    """What the time of layers is measured on: contexts, tokens decoded behind each, rows at once.

    ``context_tokens``: those that plans are chosen for, where left out.
    """

    context_tokens: tuple[Positive, ...] = ()
    decode_tokens: Positive = 32
    repeats: Positive = 5
    batch: Positive = 1


class ChooseOptions(Contract):
    selector: Spec
    strategies: tuple[Spec, ...] = Field(min_length=1)
    context_tokens: Positive = 8192


class ConvertOptions(Contract):
    """What strategies that fit tensors are fitted on; the profile's rows where left out."""

    text: str
    rows: Positive = 16
    row_tokens: Positive = 1024


class EvaluateOptions(Contract):
    metrics: tuple[Spec, ...] = Field(min_length=1)
    control: bool = False


class RepairOptions(Contract):
    """Layers given back after the gate rejected on quality, and the rest of the DAG again.

    ``rounds`` at most, ``layers`` in each; ``recall_weight`` as in the selector `milp`.
    """

    rounds: Positive = 2
    layers: Positive = 2
    recall_weight: Number = Field(default=0.1, ge=0)


Alias = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]*$")]


class RegisterOptions(Contract):
    """Where an accepted checkpoint becomes a version, and under which alias.

    The version that ``champion`` points at, if any, is measured beside each candidate.
    ``tracking_uri`` None means the embedded MLflow on SQLite under the home folder. ``approval``
    says what may be promoted to champion without being asked for; a person's approval if not given.
    """

    model_name: str = Field(min_length=1, pattern=r"^[^/:]+$")
    alias: Alias = "challenger"
    champion: Alias = "champion"
    tracking_uri: str | None = None
    approval: ApprovalPolicy | None = None


class StabilityOptions(Contract):
    """A second text to profile and choose from, and what both choices are measured on.

    ``held_out``: a text of the profile's domain, then one of the second's.
    """

    text: str
    held_out: tuple[str, str]
    rows: Positive = 8
    row_tokens: Positive = 512


class SurveyOptions(Contract):
    """Plans to compare without any training: a selector each, by a name of the user's own."""

    plans: dict[str, ChooseOptions] = Field(min_length=1)
    metrics: tuple[Spec, ...] = Field(min_length=1)
    frontier: tuple[Share, ...] = ()  # shares of the base at which `frontier_plan` is re-run
    frontier_plan: str | None = None
    frontier_budget: FrontierBudget = "kv_bytes_ratio"  # what they are shares of
    stability: StabilityOptions | None = None

    @model_validator(mode="after")
    def _frontier_has_a_plan(self) -> SurveyOptions:
        if self.frontier and self.frontier_plan not in self.plans:
            raise ValueError(f"frontier_plan to be one of {', '.join(self.plans)}")
        return self

    def points(self) -> dict[str, ChooseOptions]:
        """One plan per budget of the frontier, by name: its plan's selector at that budget."""
        if self.frontier_plan is None:
            return {}
        wanted = self.plans[self.frontier_plan]
        selector = wanted.selector
        return {
            f"{self.frontier_plan} at {share:g}": wanted.model_copy(
                update={
                    "selector": Spec(
                        name=selector.name, **(selector.options | {self.frontier_budget: share})
                    )
                }
            )
            for share in self.frontier
        }


class Recipe(Contract):
    """Everything that a run does."""

    name: str = Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    seed: Count = 0
    data_root: str | None = None  # where `local:` paths start; the recipe's folder if not given
    store: str | None = None  # s3://bucket/prefix or a folder; under the home folder if not given
    model: ModelSource
    data: dict[str, TextSource] = Field(min_length=1)
    profile: ProfileOptions
    costs: CostOptions | None = None
    choose: ChooseOptions | None = None
    regularize: RegularizeOptions | None = None
    convert: ConvertOptions | None = None
    finetune: FinetuneOptions | None = None
    evaluate: EvaluateOptions | None = None
    gate: GatePolicy | None = None
    watch: tuple[WatchRule, ...] = ()  # bands of a registered version, watched by requalify
    repair: RepairOptions | None = None
    registry: RegisterOptions | None = None
    rollout: RolloutPolicy | None = None  # of a registered version: stages, limits, approval
    survey: SurveyOptions | None = None
    compute: Compute = Compute()
    price: Price | None = None  # of the device; without it no money is spoken of

    @model_validator(mode="after")
    def _texts_exist(self) -> Recipe:
        for at, text in self._texts():
            if text not in self.data:
                raise _misplaced(at, f"one of {', '.join(self.data)}, not {text!r}")
            if self.data[text].form != "text":
                raise _misplaced(at, f"a text, and data.{text} has form {self.data[text].form}")
        if self.survey and (stability := self.survey.stability):
            if stability.text == self.profile.text:
                raise _misplaced(("survey", "stability", "text"), "another text than the profile's")
            if len(set(stability.held_out)) == 1:
                raise _misplaced(("survey", "stability", "held_out"), "two different texts")
        for step, placement in self.compute.steps.items():
            if step not in STEPS:
                raise _misplaced(("compute", "steps", step), f"one of {', '.join(STEPS)}")
            if placement.pool and step not in PLACED_STEPS:
                raise _misplaced(
                    ("compute", "steps", step, "pool"), f"none: {step} is the run's own work"
                )
            if placement.processes > 1 and step not in TRAINING_STEPS:
                raise _misplaced(
                    ("compute", "steps", step, "processes"),
                    f"1: only {' and '.join(TRAINING_STEPS)} run in several processes",
                )
            if placement.memory and step not in STREAMING_STEPS:
                raise _misplaced(
                    ("compute", "steps", step, "memory"),
                    f"none: only {', '.join(STREAMING_STEPS)} run a model larger than memory",
                )
        return self

    def _texts(self) -> Iterable[tuple[tuple[str, ...], str]]:
        """The texts that the recipe names outside its metrics, each with its place."""
        yield ("profile", "text"), self.profile.text
        if self.convert:
            yield ("convert", "text"), self.convert.text
        if self.survey and (stability := self.survey.stability):
            at = ("survey", "stability")
            yield (*at, "text"), stability.text
            yield from (((*at, "held_out"), text) for text in stability.held_out)
        trainings = {"regularize": self.regularize, "finetune": self.finetune}
        for step, training in trainings.items():
            if training:
                yield (step, "text"), training.text
                if training.validation:
                    yield (step, "validation", "text"), training.validation.text


def _misplaced(at: tuple[str, ...], expected: str) -> PydanticCustomError:
    """An error that a check over several fields found at one of them."""
    return PydanticCustomError("misplaced", "{expected}", {"at": at, "expected": expected})


def load_recipe(path: Path | str, overrides: Iterable[str] = ()) -> tuple[Recipe, Located]:
    """Read a recipe and apply ``--set`` assignments.

    Returns:
        The recipe, and its located document for errors that are found later.

    Raises:
        InputError: the first thing that is wrong, with file, line, field and what was expected.
    """
    document = Located(path)
    for assignment in overrides:
        document.override(assignment)
    recipe = document.validate(Recipe)
    if recipe.data_root is None:
        recipe = recipe.model_copy(update={"data_root": str(Path(path).resolve().parent)})
    return recipe, document
