"""A registered version measured again, and two side by side, as a user drives it."""

import json
import sqlite3
from pathlib import Path

import pytest
from facts import says
from layerwright_process import last_line, layerwright
from report.page_reader import Page, check_form
from tiny_checkpoint import write_tiny_inputs

from layerwright.flows.session.checkpoints import named_checkpoint
from layerwright.flows.session.prepare import prepare_again
from layerwright.flows.session.runs import RunFolder
from layerwright.tasks.contracts.requalification import Requalification
from layerwright.tasks.errors import InputError
from layerwright.tasks.home import Home
from layerwright.tasks.orchestration.place import Place
from layerwright.tasks.tracking import connect

NAME = "tiny-hybrid"
WATCH = """\
watch:
  - {metric: perplexity.*, max_ratio: 1.5}
  - {metric: kv_bytes.1024, against: registered, min_ratio: 0.99, max_ratio: 1.01}
"""
APPROVED = ("--approve-by", "Ann", "--reason", "first")


RULE = "gate.rules.1={metric: perplexity.*, max: 1.5, arm: champion, on: bound, slice: pos*}"
OTHER = (
    *("--set", "finetune.stages.0.steps=4"),
    *("--set", RULE, "--set", "gate.min_items=4"),
)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, dict, dict]:
    """A home with two versions: the first is champion, the second was compared with it."""
    folder = tmp_path_factory.mktemp("registered")
    recipe = write_tiny_inputs(folder)
    recipe.write_text(recipe.read_text() + WATCH)
    first = layerwright("convert", "recipe.yaml", "--json", cwd=folder)
    assert first.returncode == 0, first.stderr
    assert layerwright("promote", NAME, *APPROVED, cwd=folder).returncode == 0
    second = layerwright("convert", "recipe.yaml", "--json", *OTHER, cwd=folder)
    assert second.returncode == 0, second.stderr
    (folder / "fresh.txt").write_text((folder / "train.txt").read_text()[::-1])
    return folder, last_line(first), last_line(second)


@pytest.fixture
def registered(made) -> Path:
    return made[0]


def test_a_later_candidate_is_measured_beside_the_champion(made) -> None:
    folder, first, second = made
    assert list(first["metrics"]) == ["base", "candidate"]
    assert list(second["metrics"]) == ["base", "candidate", "champion"]
    assert (
        second["metrics"]["champion"]["perplexity.held-out"]
        == first["metrics"]["candidate"]["perplexity.held-out"]
    )
    assert second["registered"]["version"] == "2"
    page = Page(Path(second["report"].removeprefix("file://")).read_text())
    assert page.says("champion", "version 1", section="quality")
    assert page.says("perplexity.held-out", "champion", "pos*", "1.5", "95 %", section="gate")
    assert tags_of(folder, "2")["gate_checks"] == "2 passed, 0 warned, 0 waived"


def tags_of(folder: Path, version: str) -> dict[str, str]:
    with connect(f"sqlite:///{folder}/.layerwright/mlflow.db") as client:
        tags = client.get_model_version(NAME, version).tags
    return {key.removeprefix("layerwright."): value for key, value in tags.items()}


def alarms(folder: Path) -> list[dict]:
    with sqlite3.connect(folder / ".layerwright" / "prefect" / "prefect.db") as database:
        found = database.execute(
            "select payload from events where event = 'layerwright.left-band' order by occurred"
        )
        return [json.loads(payload) for (payload,) in found]


def test_on_fresh_data_beside_the_champion(registered: Path) -> None:
    fresh = ("--set", f"data.held-out.source=local:{registered}/fresh.txt")
    result = layerwright("requalify", f"{NAME}@challenger", "recipe.yaml", *fresh, "--json",
                         cwd=registered)  # fmt: skip
    assert result.returncode == 0, result.stderr
    found = last_line(result)
    assert (found["model"], found["version"], found["decision"]) == (NAME, "2", "accepted")
    assert list(found["metrics"]) == ["base", "candidate", "champion"]
    assert found["alarms"] == []
    tags = tags_of(registered, "2")
    assert tags["requalified_decision"] == "accepted"
    assert tags["requalified_compared_champion"] == "1"
    assert tags["requalified_run_id"] == found["run_id"]
    assert tags["requalified_decided_at"] >= tags["decided_at"]
    page = Page(Path(found["report"].removeprefix("file://")).read_text())
    check_form(page)
    assert page.says("version 2", "tiny-hybrid")
    assert page.says("champion", "version 1", section="figures")
    assert page.says("all figures", "inside their bands", section="verdict")


def test_what_leaves_its_band_is_an_alarm_and_a_rejection_counts(registered: Path) -> None:
    tight = ("--set", "watch.0.max_ratio=0.5", "--set", "gate.rules.0.max=0.01")
    judged = ("requalify", f"{NAME}/1", "recipe.yaml", *tight, "--json")
    result = layerwright(*judged, cwd=registered, embedded=True)  # whose database has the events
    assert result.returncode == 3, result.stderr
    found = last_line(result)
    assert list(found["metrics"]) == ["base", "candidate"], "the champion is not its own rival"
    (alarm,) = found["alarms"]
    assert (alarm["metric"], alarm["reason"]) == ("perplexity.held-out", "above 0.5")
    raised = alarms(registered)[-1]
    assert (raised["metric"], raised["version"], raised["run_id"]) == (
        "perplexity.held-out", "1", found["run_id"],
    )  # fmt: skip
    assert tags_of(registered, "1")["requalified_decision"] == "rejected"

    again = layerwright("requalify", f"{NAME}@champion", "recipe.yaml", *tight, "--json",
                        cwd=registered)  # fmt: skip
    second = last_line(again)
    assert [point["run_id"] for point in second["trend"]] == [found["run_id"], second["run_id"]]
    assert second["cache_hits"] == ["fetch", "evaluate"]
    # the same measurements judged again are no new evidence
    assert tags_of(registered, "1")["requalified_run_id"] == found["run_id"]
    page = Page(Path(second["report"].removeprefix("file://")).read_text())
    check_form(page)
    assert page.says("1 figure", "band", section="verdict")
    home = Home.at(registered / ".layerwright")
    kept = RunFolder(home, second["run_id"]).result()
    assert isinstance(kept, Requalification)
    assert kept.model_dump(mode="json") == second
    with pytest.raises(InputError, match="layerwright requalify"):
        prepare_again(home, second["run_id"])


def test_two_versions_side_by_side(registered: Path) -> None:
    both, few = (f"{NAME}/1", f"{NAME}/2"), ("--set", "gate.min_items=4")
    result = layerwright("compare", *both, "recipe.yaml", *few, "--json", cwd=registered)
    assert result.returncode == 0, result.stderr
    found = last_line(result)
    figures = {figure["metric"]: figure for figure in found["figures"]}
    perplexity = figures["perplexity.held-out"]
    assert perplexity["a"] != perplexity["b"]
    assert perplexity["difference"] == perplexity["b"] - perplexity["a"]
    assert perplexity["low"] <= perplexity["difference"] <= perplexity["high"]
    assert perplexity["items"] == 4
    assert "item" in figures["kv_bytes.1024"]["reason"]
    worst = [row for row in found["regressions"] if row["metric"] == "perplexity.held-out"]
    assert [row["loss"] for row in worst] == sorted((r["loss"] for r in worst), reverse=True)

    # the other way round, one of them as a folder
    folder = found["checkpoints"]["A"]["uri"].removeprefix("file://")
    turned = last_line(
        layerwright("compare", both[1], folder, "recipe.yaml", *few, "--json", cwd=registered)
    )
    again = {figure["metric"]: figure for figure in turned["figures"]}["perplexity.held-out"]
    assert again["difference"] == pytest.approx(-perplexity["difference"])
    assert again["p_value"] == pytest.approx(perplexity["p_value"], abs=0.05)
    assert turned["checkpoints"]["B"]["sha256"] == found["checkpoints"]["A"]["sha256"]


def test_what_cannot_be_compared_is_told(registered: Path, tmp_path: Path) -> None:
    home = Home.at(registered / ".layerwright")
    place = Place(home=str(home), store=str(home.store))
    with pytest.raises(InputError, match="'nowhere'"):
        named_checkpoint("nowhere", place)
    with pytest.raises(InputError, match=says("layerwright.json")):
        named_checkpoint(str(registered / "model"), place)
    with pytest.raises(InputError, match="version 7"):
        named_checkpoint(f"{NAME}/7", place)
    empty = Place(home=str(tmp_path), store=str(tmp_path))
    with pytest.raises(InputError, match="registry"):
        named_checkpoint(f"{NAME}/1", empty)
    first = named_checkpoint(f"{NAME}/1", place)
    assert first == named_checkpoint(RunFolder.all(home)[0].run_id, place)
