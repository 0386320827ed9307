"""Names of a survey's plan files, and the commands that run them."""

import shlex
from pathlib import Path

import pytest

from layerwright.flows.outcome.survey import command, file_names
from layerwright.flows.session.runs import RunRecord
from layerwright.tasks.home import Home
from layerwright.tasks.recipe.data import TextSource
from layerwright.tasks.recipe.model import ModelSource
from layerwright.tasks.recipe.profile import ProfileOptions
from layerwright.tasks.recipe.recipe import Recipe


@pytest.mark.parametrize(
    ("plans", "files"),
    [
        (["by_damage at 0.5"], ["by_damage-at-0.5.yaml"]),
        (["a b", "a-b", "A/b"], ["a-b.yaml", "a-b-2.yaml", "A-b-3.yaml"]),
        (["../../etc/passwd", "..", "", "ü"], ["etc-passwd.yaml", "plan.yaml", "plan-2.yaml",
                                                "plan-3.yaml"]),
        (["x" * 300], ["x" * 80 + ".yaml"]),
        (["a", "a-2", "A"], ["a.yaml", "a-2.yaml", "A-3.yaml"]),
    ],
)  # fmt: skip
def test_file_names_are_safe_and_never_twice(plans: list[str], files: list[str]) -> None:
    assert file_names(plans) == files


def test_a_command_repeats_what_a_conversion_reads_of_the_survey(tmp_path: Path) -> None:
    recipe = Recipe(
        name="r",
        model=ModelSource(source="local:m"),
        data={"t": TextSource(source="local:t")},
        profile=ProfileOptions(text="t", profilers=()),
    )
    record = RunRecord(
        run_id="r",
        recipe_path=str(tmp_path / "my recipe.yaml"),
        recipe_text="",
        recipe=recipe,
        assignments=("data_root=a b", "survey.frontier=[0.5]", "seed=2"),
        started_at="",
    )
    words = shlex.split(command(record, "/x/plans/a.yaml", Home(Path("/x/home dir"))))
    assert words == [
        "layerwright", "convert", str(tmp_path / "my recipe.yaml"), "--plan", "/x/plans/a.yaml",
        "--home", "/x/home dir", "--set", "data_root=a b", "--set", "seed=2",
    ]  # fmt: skip
