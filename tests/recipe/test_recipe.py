"""Recipes: what is right loads, what is wrong is told with file, line and field."""

from pathlib import Path

import pytest

from layerwright.tasks.errors import InputError
from layerwright.tasks.finetune.objectives.logit_kl import LogitKL
from layerwright.tasks.profile.profilers.laziness import Laziness
from layerwright.tasks.recipe.recipe import Recipe, load_recipe
from layerwright.tasks.recipe.training import PROJECTIONS

ROOT = Path(__file__).resolve().parents[2]
TEXT = """\
name: tiny
seed: 3
model:
  source: local:model
data:
  train:
    source: local:t.txt
    part: [0.0, 0.5]
  calibration:
    source: local:c.txt
profile:
  text: calibration
  rows: 4
  profilers:
    - name: laziness
      window: 16
choose:
  strategies:
    - {name: streaming, window: 28}
  selector: {name: milp, kv_bytes_ratio: 0.5}
finetune:
  text: train
  stages:
    - objectives: [{name: logit_kl}]
      steps: 6
      learning_rate: 2e-4
gate:
  rules:
    - metric: kv_bytes.1024
      max: 0.6
registry:
  model_name: tiny
compute:
  steps:
    profile: {device: cpu}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "recipe.yaml"


def load(path: Path, text: str = TEXT, *sets: str) -> Recipe:
    path.write_text(text)
    return load_recipe(path, sets)[0]


def error_of(path: Path, old: str, new: str) -> InputError:
    assert old in TEXT
    with pytest.raises(InputError) as error:
        load(path, TEXT.replace(old, new, 1))
    assert error.value.exit_status == 2
    return error.value


def test_a_right_recipe(path: Path) -> None:
    recipe = load(path)
    assert recipe.data_root == str(path.parent.resolve())
    assert recipe.profile.profilers == (Laziness(window=16),)
    assert recipe.finetune.stages[0].learning_rate == 2e-4
    assert recipe.compute.of("profile").device == "cpu"
    assert recipe.compute.of("evaluate").device == "auto"
    assert load(path, TEXT, "costs={context_tokens: [64]}").costs.context_tokens == (64,)
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe


def test_a_stage_of_healing_needs_its_steps_alone(path: Path) -> None:
    stage = load(path, TEXT, "finetune.stages=[{steps: 6}]").finetune.stages[0]
    assert stage.objectives == (LogitKL(),)
    assert stage.adapter.targets == PROJECTIONS


def test_memory_bounds_the_steps_that_stream_and_no_other(path: Path) -> None:
    recipe = load(path, TEXT, "compute.default.memory=1.5GB", "compute.steps.convert.memory=1MiB")
    asked = {step: recipe.compute.memory_of(step) for step in ("evaluate", "convert", "finetune")}
    assert asked == {"evaluate": 1_500_000_000, "convert": 2**20, "finetune": None}
    assert recipe.compute.memory_of("profile") is None, "its own placement says nothing of memory"
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe


@pytest.mark.parametrize("name", sorted(p.name for p in (ROOT / "recipes").glob("*.yaml")))
def test_the_recipes_that_are_shipped(name: str) -> None:
    assert load_recipe(ROOT / "recipes" / name)[0].name


@pytest.mark.parametrize(
    ("old", "new", "place", "expected"),
    [
        # typos
        ("seed:", "sede:", "2: sede", "one of name, seed, data_root"),
        ("choose:", "costs: {tokens: 8}\nchoose:", "17: costs.tokens", "context_tokens"),
        ("rows: 4", "row: 4", "13: profile.row", "one of text, rows"),
        ("    part:", "    prat:", "8: data.train.prat", "one of source, files, field, part"),
        ("max: 0.6", "mx: 0.6", "30: gate.rules.0.mx", "one of metric, arm, compare, min, max"),
        ("{device: cpu}", "{devise: cpu}", "35: compute.steps.profile.devise", "where, pool"),
        # wrong types
        ("rows: 4", "rows: four", "13: profile.rows", "integer, not 'four'"),
        ("rows: 4", "rows: true", "13: profile.rows", "integer, not True"),
        ("rows: 4", "rows: 4.5", "13: profile.rows", "integer, not 4.5"),
        ("rows: 4", "rows: '4'", "13: profile.rows", "integer, not '4'"),
        ("rows: 4", "rows:", "13: profile.rows", "integer"),
        ("name: tiny", "name: 7", "1: name", "string, not 7"),
        ("- name: laziness\n      window: 16", "- laziness", "15: profile.profilers.0",
         "not 'laziness'"),
        ("    source: local:c.txt", "    local:c.txt", "9: data.calibration", "not 'local:c.txt'"),
        # components
        ("name: laziness", "name: lazyness", "15: profile.profilers.0.name", "linearity"),
        ("window: 16", "windows: 16", "16: profile.profilers.0.windows", "sinks, window"),
        ("window: 28", "window: 0", "19: choose.strategies.0.window", "sinks, window"),
        (", kv_bytes_ratio: 0.5", "", "20: choose.selector.name", "kv_bytes_ratio"),
        ("name: logit_kl", "name: kl", "24: finetune.stages.0.objectives.0.name", "logit_kl"),
        # impossible values
        ("rows: 4", "rows: 0", "13: profile.rows", "greater than 0, not 0"),
        ("seed: 3", "seed: -1", "2: seed", "not -1"),
        ("name: tiny", "name: a/b", "1: name", "not 'a/b'"),
        ("[0.0, 0.5]", "[0.5, 0.1]", "6: data.train", "low < high"),
        ("[0.0, 0.5]", "[0.5, 1.1]", "8: data.train.part.1", "not 1.1"),
        ("[0.0, 0.5]", "[0.5, 0.6, 0.7]", "8: data.train.part", "at most 2 items"),
        ("model:", "modle:", "3: modle", "one of name, seed, data_root"),
        ("2e-4", "0", "26: finetune.stages.0.learning_rate", "greater than 0"),
        ("2e-4", ".inf", "26: finetune.stages.0.learning_rate", "finite"),
        ("max: 0.6", "max: .nan", "30: gate.rules.0.max", "finite"),
        ("max: 0.6", "severity: warn", "29: gate.rules.0", "exactly one of min and max"),
        ("max: 0.6", "max: 1\n      min: 0", "29: gate.rules.0", "exactly one of min and max"),
        ("source: local:model", "source: x\n  dtype: int8", "5: model.dtype", "'float32'"),
        ("{device: cpu}", "{where: moon}", "35: compute.steps.profile.where", "not 'moon'"),
        ("model_name: tiny", "model_name: a/b", "32: registry.model_name", "not 'a/b'"),
        ("steps: 6", "steps: 6\n      warmup_steps: 6", "24: finetune.stages.0",
         "below steps (6), not 6"),
        ("steps: 6", "steps: 6\n      adapter: {kind: none}", "24: finetune.stages.0",
         "an adapter or parts"),
        ("steps: 6", "steps: 6\n      parts_learning_rate: 1e-5", "24: finetune.stages.0",
         "parts together with parts_learning_rate"),
        ("[{name: logit_kl}]", "[]", "24: finetune.stages.0.objectives", "at least 1 item"),
        ("[{name: logit_kl}]", "[{name: logit_kl}, {name: logit_kl}]", "24: finetune.stages.0",
         "each objective once"),
        ("{device: cpu}", "{processes: 2}", "35: compute.steps.profile.processes",
         "only regularize and finetune"),
        ("{device: cpu}", "{memory: lots}", "35: compute.steps.profile.memory", "not 'lots'"),
        ("{device: cpu}", "{memory: 0}", "35: compute.steps.profile.memory", "greater than 0"),
        ("    profile: {device: cpu}", "    finetune: {memory: 2GB}",
         "35: compute.steps.finetune.memory", "only profile, choose, convert, evaluate"),
        # names of things that are not there
        ("text: calibration", "text: calibratoin", "12: profile.text",
         "one of train, calibration, not 'calibratoin'"),
        ("text: train", "text: trian", "22: finetune.text", "one of train, calibration"),
        ("text: train", "text: train\n  validation: {text: trian}", "23: finetune.validation.text",
         "one of train, calibration"),
        ("    profile: {", "    profil: {", "35: compute.steps.profil", "one of fetch, profile"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_at_its_place(
    path: Path, old: str, new: str, place: str, expected: str
) -> None:
    error = error_of(path, old, new)
    assert error.where == f"{path}:{place}"
    assert expected in (error.expected or "")


@pytest.mark.parametrize(
    ("old", "place"),
    [
        ("name: tiny\n", "1: name"),
        ("model:\n  source: local:model\n", "1: model"),
        ("    source: local:t.txt\n", "6: data.train.source"),
        ("      steps: 6\n", "24: finetune.stages.0.steps"),
        ("  selector: {name: milp, kv_bytes_ratio: 0.5}\n", "17: choose.selector"),
    ],
)
def test_what_is_missing_is_told_at_what_lacks_it(path: Path, old: str, place: str) -> None:
    assert error_of(path, old, "").where == f"{path}:{place}"


def test_a_component_without_a_name(path: Path) -> None:
    error = error_of(path, "- name: laziness\n      window: 16", "- window: 16")
    assert error.where == f"{path}:15: profile.profilers.0.name"
    assert error.message == "a required field is missing"


def test_a_repeated_key(path: Path) -> None:
    error = error_of(path, "seed: 3", "seed: 3\nname: other")
    assert error.where == f"{path}:3"
    assert 'duplicate key "name"' in error.message


def test_set(path: Path, tmp_path: Path) -> None:
    recipe = load(
        path, TEXT, "profile.rows=2", "gate.rules.0.max=0.5", f"data_root={tmp_path}/data",
        "model.source=pypi:a==1.0", "finetune=", "compute.default.device=cuda:1",
    )  # fmt: skip
    assert recipe.profile.rows == 2
    assert recipe.gate.rules[0].max == 0.5
    assert recipe.data_root == f"{tmp_path}/data"
    assert recipe.model.source == "pypi:a==1.0"
    assert recipe.finetune is None
    assert recipe.compute.default.device == "cuda:1"


@pytest.mark.parametrize(
    ("assignment", "field"),
    [("profile.rows=two", "profile.rows"), ("profile.row=2", "profile.row"),
     ("profil.rows=2", "profil"), ("profile.text=none", "profile.text")],
)  # fmt: skip
def test_a_wrong_set_is_named(path: Path, assignment: str, field: str) -> None:
    with pytest.raises(InputError) as error:
        load(path, TEXT, assignment)
    assert error.value.where == f"--set {assignment}: {field}"


SURVEY = """\
survey:
  metrics: []
  plans: {dense: {selector: {name: keep_all}, strategies: [{name: streaming}]}}
  stability: {text: train, held_out: [train, calibration]}
"""


@pytest.mark.parametrize(
    ("old", "new", "place", "expected"),
    [
        ("text: train,", "text: calibration,", "text", "other than profile.text"),
        ("text: train,", "text: trian,", "text", "one of train, calibration, not 'trian'"),
        ("[train, calibration]", "[train, train]", "held_out", "two different texts"),
        ("[train, calibration]", "[train, other]", "held_out", "one of train, calibration"),
    ],
)
def test_a_second_text_is_another_one_of_the_recipes(
    path: Path, old: str, new: str, place: str, expected: str
) -> None:
    assert load(path, TEXT + SURVEY.replace("[]", "[{name: kv_cache}]")).survey.stability
    with pytest.raises(InputError) as error:
        load(path, TEXT + SURVEY.replace("[]", "[{name: kv_cache}]").replace(old, new))
    assert error.value.where == f"{path}:39: survey.stability.{place}"
    assert expected in error.value.expected
