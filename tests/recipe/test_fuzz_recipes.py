"""Broken recipes: told with exit status 2, never a traceback, and nothing is written."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from layerwright_process import layerwright
from mutations import FUZZ, files_under, holds, mutated, odd
from ruamel.yaml import YAML
from tiny_checkpoint import RECIPE, SENSITIVITY

from layerwright.flows.session.preflight import check_recipe
from layerwright.flows.session.sources import pin_sources, sources_of
from layerwright.tasks.errors import InputError
from layerwright.tasks.recipe.recipe import load_recipe

pytestmark = pytest.mark.filterwarnings("ignore::ruamel.yaml.error.ReusedAnchorWarning")
TEXT = RECIPE.format(sensitivity=SENSITIVITY, folder="inputs", perplexity_limit=1.5)
DOCUMENT = YAML(typ="safe").load(TEXT)
LINES = TEXT.splitlines()
BOMB = "bomb0: &b0 [x, x]\n" + "".join(
    f"bomb{i}: &b{i} [{', '.join([f'*b{i - 1}'] * 9)}]\n" for i in range(1, 10)
)
TRICKS = (
    "x: &a [*a]", "name: &a {b: *a}", "<<: {seed: 4}", "<<: [1]",
    "x: !!python/object/apply:os.getcwd []",
    "seed: !!int '7'", "name: !!binary aGVsbG8=", "seed: !mine 3", "x: !!set {a, b}",
    "? [1, 2]\n: 3",
    "? {a: 1}\n: 3", "1: 2", "null: 1", "---", "...", "%YAML 9.9", "\tseed: 1", "seed: 3",
    "name: 2020-01-01",
    "seed: 1_000", "seed: 0x" + "f" * 6000, "seed: -0x" + "f" * 6000, "seed: " + "9" * 6000,
    "seed: .nan", "seed: .inf", "seed: &a true", "x: " + "[" * 400, "- 1", "name: |", "@", "'", '"',
    "\x07",
    "name: \"\\0\"", "name: \"\\ud800\"", BOMB, "\ufeff", "x: *nowhere", "name: *b9",
)  # fmt: skip


def dumped(document: object) -> str:
    """JSON is YAML, but for what is not a number."""
    return json.dumps(document).replace("NaN", ".nan").replace("Infinity", ".inf")


def check(path: Path, assignments: Sequence[str] = (), flow: str = "convert") -> None:
    """What a command does with a recipe before it starts anything."""
    recipe, document = load_recipe(path, assignments)
    check_recipe(recipe, document, flow=flow)
    pin_sources(sources_of(recipe, document, flow=flow), document)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the recipe is good: its sources exist."""
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "inputs" / "model").mkdir(parents=True)
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (folder / "inputs" / "model" / name).write_bytes(b"{}")
    for name in ("train", "calibration", "held-out"):
        (folder / "inputs" / f"{name}.txt").write_text("text")
    (folder / "recipe.yaml").write_text(TEXT)
    check(folder / "recipe.yaml")
    check(folder / "recipe.yaml", flow="survey")
    return folder


def told(folder: Path, data: bytes, *assignments: str, flow: str = "convert") -> None:
    path = folder / "recipe.yaml"
    path.write_bytes(data)
    before = files_under(folder)
    holds(lambda: check(path, assignments, flow), 2)
    assert files_under(folder) == before


@FUZZ
@given(mutated(DOCUMENT), st.sampled_from(["convert", "survey"]))
def test_changed_values(folder: Path, document: object, flow: str) -> None:
    told(folder, dumped(document).encode(), flow=flow)


@FUZZ
@given(
    st.lists(st.tuples(st.integers(0, len(LINES)), st.sampled_from(TRICKS)), max_size=3), st.data()
)
def test_changed_lines(folder: Path, tricks: list[tuple[int, str]], data: st.DataObject) -> None:
    lines = list(LINES)
    for at, trick in tricks:
        indent = data.draw(st.sampled_from(["", "  ", "    "]))
        lines.insert(at, indent + trick)
    if data.draw(st.booleans()):
        del lines[data.draw(st.integers(0, len(lines) - 1))]
    told(folder, "\n".join(lines).encode("utf-8", "replace"))


@FUZZ
@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode()))
def test_any_bytes(folder: Path, data: bytes) -> None:
    told(folder, data)


PATHS = (
    "seed", "name", "data_root", "store", "model", "model.source", "data.train.files",
    "profile.profilers.0",
    "profile.profilers.-1", "profile.profilers.²", "profile.profilers.9",
    "choose.selector.kv_bytes_ratio",
    "evaluate.metrics.2.tokens", "gate.rules.0.metric", "compute.steps.profile.pool",
    "survey.plans.all",
    "registry.tracking_uri", "a.b.c", "", ".", "seed.x", "finetune.stages.0.objectives.0.name",
)  # fmt: skip


@FUZZ
@given(
    st.sampled_from(PATHS),
    st.sampled_from(["=", "==", "", ":"]),
    odd.map(lambda value: str(value) if not isinstance(value, int) else hex(value))
    | st.sampled_from(
        ["&a [*a]", "[", "{a: [}", "!!python/name:os.system", "- 1", "0x" + "f" * 9000]
    ),
)
def test_assignments(folder: Path, path: str, sign: str, value: str) -> None:
    told(folder, TEXT.encode(), f"{path}{sign}{value}")


def test_aliases_that_grow_without_bound_are_refused(folder: Path) -> None:
    with pytest.raises(InputError, match="aliases"):
        load_recipe_of(folder, f"{BOMB}{TEXT}")


def load_recipe_of(folder: Path, text: str) -> None:
    (folder / "recipe.yaml").write_text(text)
    load_recipe(folder / "recipe.yaml")


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        ("seed: 3", "seed: -0x" + "f" * 6000, "2: seed"),  # too long to be shown in decimals
        ("seed: 3", "seed: &a true", "2: seed"),  # a truth value with an anchor is no number
        ("window: 16", "window: .nan", "13: profile.profilers.0.window"),
        ("window: 16", "window: 2020-01-01", "13: profile.profilers.0.window"),
        ('source: "local:inputs/model"', 'source: "a\\0"', "3: model.source"),
        ('source: "local:inputs/model"', "source: ~nobody-here/x", "3: model.source"),
        ('source: "local:inputs/model"', f"source: {'a' * 5000}", "3: model.source"),
        ("name: tiny\n", f"name: {'a' * 300}\n", "1: name"),  # a folder bears it
    ],
)
def test_the_place_is_told(folder: Path, old: str, new: str, place: str) -> None:
    path = folder / "recipe.yaml"
    assert old in TEXT
    path.write_text(TEXT.replace(old, new, 1))
    with pytest.raises(InputError) as caught:
        check(path)
    assert caught.value.where == f"{path}:{place}"


@pytest.mark.parametrize(
    "broken",
    [
        (BOMB + TEXT, "--set", "seed=&a [*a]"),
        (TEXT.replace("local:inputs/model", "~nobody-here/x"),),
    ],
)
def test_the_command_says_so(folder: Path, broken: tuple[str, ...]) -> None:
    text, *options = broken
    (folder / "recipe.yaml").write_text(text)
    before = files_under(folder)
    result = layerwright("convert", "recipe.yaml", "--home", "home", *options, cwd=folder)
    assert result.returncode == 2, result.stderr
    assert result.stderr.startswith("error: ")
    assert "Traceback" not in result.stderr
    assert files_under(folder) == before, "nothing was started"
