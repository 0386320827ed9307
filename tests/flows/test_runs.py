"""Records of runs: those of another version neither stop a command nor are taken for ours."""

import json
from pathlib import Path

import pytest

from layerwright.flows.command_line.spending import spending
from layerwright.flows.session.runs import RunFolder
from layerwright.tasks.errors import InputError
from layerwright.tasks.home import Home
from layerwright.tasks.recipe.data import TextSource
from layerwright.tasks.recipe.model import ModelSource
from layerwright.tasks.recipe.profile import ProfileOptions
from layerwright.tasks.recipe.recipe import Recipe

RECIPE = Recipe(
    name="r",
    model=ModelSource(source="local:m"),
    data={"t": TextSource(source="local:t")},
    profile=ProfileOptions(text="t", profilers=()),
)


@pytest.fixture
def folders(tmp_path: Path) -> list[RunFolder]:
    """Two runs, the newer one of a version whose recipes have a field more."""
    recipe = tmp_path / "r.yaml"
    recipe.write_text("name: r\n")
    made = [RunFolder.create(Home(tmp_path), RECIPE, recipe) for _ in range(2)]
    path = made[1].path / "run.json"
    record = json.loads(path.read_text())
    record["recipe"]["of_tomorrow"] = 1
    record["started_at"] = "2999-01-01T00:00:00+00:00"
    path.write_text(json.dumps(record))
    return made


def test_runs_of_another_version_are_passed_over(folders: list[RunFolder], tmp_path: Path) -> None:
    assert [record.run_id for record in RunFolder.all(Home(tmp_path))] == [folders[0].run_id]
    assert RunFolder.find(Home(tmp_path), "latest").run_id == folders[0].run_id


def test_one_that_is_asked_for_is_refused_with_the_field(folders: list[RunFolder]) -> None:
    with pytest.raises(InputError, match="version") as raised:
        folders[1].record()
    assert raised.value.where.endswith("run.json: recipe.of_tomorrow")


def test_a_run_without_times_is_named_and_a_month_without_runs_refused(
    folders: list[RunFolder], tmp_path: Path
) -> None:
    (month,) = spending(Home(tmp_path)).months  # the other's record is of another version
    assert month.unknown == (folders[0].run_id,)
    assert (month.runs, month.device_hours, month.money) == ({"running": 1}, {}, {})
    with pytest.raises(InputError, match="'1999-01'"):
        spending(Home(tmp_path), "1999-01")
