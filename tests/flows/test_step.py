"""A step's work on JSON, here or in a child flow."""

import json
from pathlib import Path

import pytest
from tiny_checkpoint import write_tiny_inputs

from layerwright.flows.step import HEAVY
from layerwright.tasks.contracts.references import ModelRef
from layerwright.tasks.orchestration.place import NotCached, Place, Run
from layerwright.tasks.recipe.model import ModelSource
from layerwright.tasks.store.local import LocalStore


def test_a_step_on_json(tmp_path: Path) -> None:
    write_tiny_inputs(tmp_path)
    place = Place(home=str(tmp_path / "home"), store=str(tmp_path / "store"))
    inputs = {"source": {"source": f"local:{tmp_path}/model"}, "data_root": ".", "pin": "x"}
    result = HEAVY["fetch_model"].execute(inputs, place, "fetch-one")
    model = ModelRef.model_validate_json(json.dumps(result))
    assert LocalStore(tmp_path / "store").has_tree(model.sha256)
    assert model.layers == 4
    assert not (tmp_path / "home" / "work" / "fetch-one").exists(), "removed on success"


def test_the_key_follows_what_counts_alone(tmp_path: Path) -> None:
    node = HEAVY["fetch_model"]
    one = Place(home=str(tmp_path / "a"), store=str(tmp_path / "b"))
    inputs = {"source": {"source": "local:m"}, "data_root": "/here", "pin": "x"}
    key = node.key(inputs, one)
    moved = Place(home=str(tmp_path / "c"), store=str(tmp_path / "d"))
    assert node.key(inputs | {"data_root": "/there"}, moved) == key
    assert node.key(inputs | {"pin": "y"}, one) != key
    assert node.key(inputs, one.model_copy(update={"seed": 1})) != key


def test_a_dry_run_stops_at_the_first_step_to_do(tmp_path: Path) -> None:
    place = Place(home=str(tmp_path / "home"), store=str(tmp_path / "store"))
    with pytest.raises(NotCached):
        HEAVY["fetch_model"](ModelSource(source="local:m"), ".", "pin", run=Run(place, dry=True))
    assert not (tmp_path / "home").exists()
