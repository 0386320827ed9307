"""The recipe: one YAML file that describes a whole run, with data and no code."""

from collections.abc import Iterable
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from layerwright.tasks.components import NAMES_ONLY
from layerwright.tasks.contracts.base import Contract, Count, Number, Positive
from layerwright.tasks.contracts.returns import Price
from layerwright.tasks.recipe.choose import ChooseOptions
from layerwright.tasks.recipe.compute import Compute
from layerwright.tasks.recipe.costs import CostOptions
from layerwright.tasks.recipe.data import TextSource
from layerwright.tasks.recipe.document import Located
from layerwright.tasks.recipe.evaluate import EvaluateOptions
from layerwright.tasks.recipe.gate import GatePolicy, WatchRule
from layerwright.tasks.recipe.model import ModelSource
from layerwright.tasks.recipe.profile import ProfileOptions
from layerwright.tasks.recipe.registry import RegisterOptions
from layerwright.tasks.recipe.regularize import RegularizeOptions
from layerwright.tasks.recipe.rollout import RolloutPolicy
from layerwright.tasks.recipe.survey import SurveyOptions
from layerwright.tasks.recipe.training import FinetuneOptions
from layerwright.tasks.steps import steps


class RepairOptions(Contract):
    """Repair after a rejection for quality: keep the most damaging layers unconverted, and run the
    rest of the DAG again.
    """

    rounds: Positive = 2  # maximum number of repairs
    layers: Positive = 2  # layers given back per round
    recall_weight: Number = Field(default=0.1, ge=0)  # against language damage, as in `milp`


class ConvertOptions(Contract):
    """The calibration rows on which strategies fit tensors; without it, the profile's rows."""

    text: str
    rows: Positive = 16
    row_tokens: Positive = 1024


class Recipe(Contract):
    """The whole recipe."""

    name: str = Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    seed: Count = 0
    data_root: str | None = None  # of ``local:`` paths; by default the recipe's own folder
    store: str | None = None  # ``s3://bucket/prefix`` or a folder; by default in the home folder
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
    watch: tuple[WatchRule, ...] = ()  # bands for a registered version (requalify)
    repair: RepairOptions | None = None
    registry: RegisterOptions | None = None
    rollout: RolloutPolicy | None = None
    survey: SurveyOptions | None = None
    compute: Compute = Compute()
    price: Price | None = None  # of the device; without it the report has no costs in money

    @model_validator(mode="after")
    def _blocks_agree(self) -> Self:
        for at, text in self._texts():
            _check(text in self.data, at, f"one of {', '.join(self.data)}, not {text!r}")
            form = self.data[text].form
            _check(form == "text", at, f"a text with form: text; data.{text} has form {form}")
        if self.survey and (stability := self.survey.stability):
            at, texts = ("survey", "stability"), set(stability.held_out)
            other = stability.text != self.profile.text
            _check(other, (*at, "text"), "a text other than profile.text")
            _check(len(texts) > 1, (*at, "held_out"), "two different texts")
        return self

    @model_validator(mode="after")
    def _steps_can_be_placed_so(self) -> Self:
        declared = steps()
        training = " and ".join(s.name for s in declared.values() if s.trains)
        streaming = ", ".join(s.name for s in declared.values() if s.streams)
        for name, placement in self.compute.steps.items():
            at = ("compute", "steps", name)
            _check(name in declared, at, f"one of {', '.join(declared)}")
            step = declared[name]
            alone = f"no pool: {name} always runs in the run's own process"
            _check(step.placed or not placement.pool, (*at, "pool"), alone)
            single = f"1: only {training} can use several processes"
            _check(step.trains or placement.processes == 1, (*at, "processes"), single)
            whole = f"only {streaming} can run a model larger than the device's memory"
            _check(
                step.streams or not placement.memory, (*at, "memory"), f"no memory bound: {whole}"
            )
        return self

    def _texts(self) -> Iterable[tuple[tuple[str, ...], str]]:
        """The texts that the recipe names outside its metrics, each after the path to its field."""
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


def _check(holds: bool, at: tuple[str, ...], expected: str) -> None:
    """Raise the error of a check of several fields, to be reported at the field ``at``."""
    if not holds:
        raise PydanticCustomError("misplaced", "{expected}", {"at": at, "expected": expected})


def load_recipe(
    path: Path | str, overrides: Iterable[str] = (), *, components: bool = True
) -> tuple[Recipe, Located]:
    """Read a recipe and apply ``--set`` assignments.

    Args:
        components: False keeps the names and options of components, and imports no room.

    Returns:
        The recipe, and its document, which later checks use to name file and line.

    Raises:
        InputError: names the first error's file, line and field, and what was expected.
    """
    document = Located(path)
    for assignment in overrides:
        document.override(assignment)
    recipe = document.validate(Recipe, None if components else NAMES_ONLY)
    if recipe.data_root is None:
        recipe = recipe.model_copy(update={"data_root": str(Path(path).resolve().parent)})
    return recipe, document
