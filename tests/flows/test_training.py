"""Recipes with regularisation and several stages, driven as a user drives them."""

import json
from pathlib import Path

import pytest
from facts import missing
from layerwright_process import last_line, layerwright
from tiny_checkpoint import write_tiny_inputs

CHOOSE = """\
choose:
  context_tokens: 1024
  strategies: [{name: remove}]
  selector: {name: listed, layers: [2]}
regularize:
  text: train
  row_tokens: 64
  steps: 6
  adapter: {kind: full}
  learning_rate: 1.0e-3
  weights: [0.1, 1.0]
  sweep_steps: 2
  validation: {text: held-out, rows: 2}
"""
FINETUNE = """\
finetune:
  text: train
  row_tokens: 64
  validation: {text: held-out, rows: 2, every_tokens: 128, patience: 4}
  stages:
    - objectives: [{name: hidden_state}]
      steps: 4
      adapter: {kind: full}
    - objectives: [{name: logit_kl}, {name: next_token, weight: 0.1}]
      steps: 6
      adapter: {rank: 2, alpha: 4}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    where = tmp_path_factory.mktemp("training")
    recipe = write_tiny_inputs(where, perplexity_limit=100.0)
    text = recipe.read_text()
    before, rest = text.split("choose:\n", 1)
    evaluate = rest[rest.index("evaluate:\n") :].replace("max: 0.6}", "max: 0.8}")
    recipe.write_text(before + CHOOSE + FINETUNE + evaluate)
    return where


def test_the_whole_way_with_regularisation_and_stages(folder) -> None:
    result = layerwright("convert", "recipe.yaml", "--json", cwd=folder)
    assert result.returncode == 0, result.stderr
    summary = last_line(result)
    assert {"regularize", "convert", "finetune"} <= set(summary["seconds"])
    run = folder / ".layerwright" / "runs" / summary["run_id"]
    regularised = json.loads((run / "regularization.json").read_text())
    assert regularised["layers"] == [2]
    assert len(regularised["trials"]) == 2
    healed = json.loads((run / "finetune.json").read_text())
    assert [stage["steps"] for stage in healed["stages"]] == [4, 6]
    checkpoint = Path(summary["checkpoint"]["uri"].removeprefix("file://"))
    lineage = json.loads((checkpoint / "layerwright.json").read_text())
    assert lineage["regularized"]["sha256"] == regularised["model"]["sha256"]
    assert lineage["base"]["sha256"] != regularised["model"]["sha256"]
    assert lineage["finetune"]["teacher_sha256"] == lineage["base"]["sha256"]
    again = last_line(layerwright("convert", "recipe.yaml", "--json", cwd=folder))
    assert {"regularize", "convert", "finetune"} <= set(again["cache_hits"])
    assert again["checkpoint"] == summary["checkpoint"]


def test_a_plan_that_takes_nothing_out_needs_no_regularisation(folder) -> None:
    kept = ("--set", "choose.selector={name: keep_all}")
    result = layerwright("convert", "recipe.yaml", "--json", *kept, cwd=folder)
    assert not missing(result.stderr, "regularize", "remove")
    summary = last_line(result)
    assert "regularize" not in summary["seconds"]
    assert set(summary["plan"].values()) == {"keep"}


def test_a_dry_run_tells_of_both_trainings(folder) -> None:
    other = ("--set", "seed=5")
    told = last_line(
        layerwright("convert", "recipe.yaml", "--dry-run", "--json", *other, cwd=folder)
    )
    assert {"regularize", "finetune"} <= {step["step"] for step in told["steps"]}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("finetune.stages.0.objectives.0.name=hidden", "'hidden'"),
        ("finetune.stages.1.objectives.0.wieght=2", "finetune.stages.1.objectives.0.wieght"),
        ("compute.steps.evaluate.processes=2", "compute.steps.evaluate"),
    ],
)
def test_what_is_wrong_is_told_before_anything_starts(folder, change, told) -> None:
    result = layerwright("convert", "recipe.yaml", "--set", change, cwd=folder)
    assert result.returncode == 2
    assert told in result.stderr


def test_objectives_are_listed() -> None:
    listed = last_line(layerwright("methods", "--json", cwd=Path.cwd()))
    assert "attention_output" in listed["objectives"]
