"""A step's work on JSON, here or in a child flow."""

import json
from pathlib import Path

import pytest
from tiny_checkpoint import write_tiny_inputs

from layerwright.tasks.contracts.references import ModelRef
from layerwright.tasks.fetch.task import fetch_model
from layerwright.tasks.orchestration.job import Job, run_job
from layerwright.tasks.orchestration.place import NotCached, Place, Run
from layerwright.tasks.recipe.model import ModelSource
from layerwright.tasks.store.local import LocalStore


def test_a_job_on_json(tmp_path: Path) -> None:
    write_tiny_inputs(tmp_path)
    place = Place(home=str(tmp_path / "home"), store=str(tmp_path / "store"))
    asked = fetch_model.job(place, ModelSource(source=f"local:{tmp_path}/model"), ".", "pin")
    job = Job.model_validate_json(asked.model_dump_json())
    model = ModelRef.model_validate_json(json.dumps(run_job(job)))
    assert LocalStore(tmp_path / "store").has_tree(model.sha256)
    assert model.layers == 4
    assert not job.workdir.exists(), "removed on success"


def test_the_key_follows_what_counts_alone(tmp_path: Path) -> None:
    def key(place: Place, data_root: str = "/here", pin: str = "x") -> str:
        return fetch_model.job(place, ModelSource(source="local:m"), data_root, pin).key

    one = Place(home=str(tmp_path / "a"), store=str(tmp_path / "b"))
    moved = Place(home=str(tmp_path / "c"), store=str(tmp_path / "d"))
    assert key(moved, "/there") == key(one)
    assert key(one, pin="y") != key(one)
    assert key(one.model_copy(update={"seed": 1})) != key(one)


def test_a_dry_run_stops_at_the_first_step_to_do(tmp_path: Path) -> None:
    place = Place(home=str(tmp_path / "home"), store=str(tmp_path / "store"))
    with pytest.raises(NotCached):
        fetch_model(ModelSource(source="local:m"), ".", "pin", run=Run(place, dry=True))
    assert not (tmp_path / "home").exists()
