"""A staged roll-out as a user drives it, of two real tiny checkpoints."""

import json
import shutil
import sqlite3
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
from facts import missing
from layerwright_process import kill_when, last_line, layerwright
from prefect_events import Event, events
from register.case import NAME
from rollout.case import build_home, short, write_log

from layerwright.tasks.rollout.assignment import assign

ARGUMENTS = ("rollout", NAME, "recipe.yaml", "--log", "log.jsonl")


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("built") / "work"
    folder.mkdir()
    build_home(folder)
    return folder


DATABASE = Path(".layerwright", "mlflow.db")


@pytest.fixture
def folder(built: Path):
    """The built folder itself, as registries hold paths; put back after the test.

    Its database is written back into the same file, which MLflow's pool keeps open.
    """
    kept = built.with_name("kept")
    shutil.copytree(built, kept)
    yield built
    for path in sorted(built.rglob("*"), reverse=True):  # what lies in a folder before the folder
        if not path.is_dir():
            if not path.name.startswith(DATABASE.name):
                path.unlink()
        elif not any(path.iterdir()):
            path.rmdir()
    shutil.copytree(
        kept, built, dirs_exist_ok=True, ignore=shutil.ignore_patterns(f"{DATABASE.name}*")
    )
    with sqlite3.connect(kept / DATABASE) as source, sqlite3.connect(built / DATABASE) as target:
        source.backup(target)
    shutil.rmtree(kept)


def roll_out(folder: Path, *more: str, embedded: bool = False) -> subprocess.CompletedProcess[str]:
    return layerwright(*ARGUMENTS, *more, "--json", cwd=folder, embedded=embedded)


def assigned(folder: Path, request_id: str) -> dict:
    return last_line(layerwright("assign", NAME, request_id, "--json", cwd=folder))


def registered(folder: Path, query: str) -> str:
    """One value of the registry, read past MLflow."""
    with sqlite3.connect(folder / DATABASE) as database:
        return str(database.execute(query).fetchone()[0])


def champion(folder: Path) -> str:
    return registered(
        folder, "select version from registered_model_aliases where alias = 'champion'"
    )


def ended_as(event: Event, status: str) -> bool:
    name, payload = event
    return name == "layerwright.rollout" and payload["state"]["status"] == status


def records(folder: Path, stage: int) -> list[dict]:
    (path,) = (folder / ".layerwright" / "rollouts").glob(f"*/stage-{stage}.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_good_challenger_becomes_champion(folder: Path) -> None:
    write_log(folder, 250)
    began = datetime.now(UTC)
    result = roll_out(folder)
    assert result.returncode == 0, result.stderr + result.stdout
    found = last_line(result)
    assert (found["state"]["status"], found["state"]["challenger"]) == ("promoted", "2")
    stages = [(one["stage"], one["verdict"], one["pairs"]) for one in found["stages"]]
    assert stages == [
        ("shadow", "advance", 8),
        ("5 %", "advance", 5),
        ("25 %", "advance", 8),
        ("100 %", "advance", 8),
    ]
    assert champion(folder) == "2"
    move = found["move"]
    assert (move["by"], move["how"], move["before"]) == ("platform team", "policy", "1")
    assert not missing(move["reason"], "roll-out 1", "shadow", "8 pairs", "5 %", "5 pairs")

    shadow, small = records(folder, 0), records(folder, 1)
    assert {one["side"] for one in shadow} == {"champion"}, "its answer counts"
    for one in small:
        assert one["side"] == assign(NAME, one["id"], 0.05)
        assert (one["challenger"] is None) == (one["side"] == "champion")
    pair = shadow[0]
    assert pair["champion"]["text"] == pair["challenger"]["text"]
    assert pair["champion"]["cost"] == pytest.approx(pair["champion"]["seconds"] * 3.6 / 3600)
    assert pair["agreement"] == 1
    assert pair["challenger_nll"] == pytest.approx(pair["champion_nll"], rel=1e-4)

    said = events(began, lambda event: ended_as(event, "promoted"))
    told = [(name, one["decision"]) for name, one in said if name.endswith("rollout")]
    assert [one["stage"] for _, one in told[:-1]] == ["shadow", "5 %", "25 %", "100 %"]
    assert "layerwright.promoted" in [name for name, _ in said]

    again = last_line(roll_out(folder))
    assert again["state"] == found["state"], "it has ended: nothing is done twice"
    assert assigned(folder, "r1") == {
        "model": NAME, "request_id": "r1", "side": "champion", "version": "2", "share": 0.0,
    }  # fmt: skip


def test_a_regression_at_25_percent_goes_back_unattended(folder: Path) -> None:
    write_log(folder, 250, long_from_stage=2)
    began = datetime.now(UTC)
    result = roll_out(folder)
    assert result.returncode == 3, result.stderr + result.stdout
    assert "Traceback" not in result.stderr
    found = last_line(result)
    assert found["state"]["status"] == "rolled back"
    assert found["state"]["share"] == 0
    assert [(one["stage"], one["verdict"]) for one in found["stages"]] == [
        ("shadow", "advance"),
        ("5 %", "advance"),
        ("25 %", "roll back"),
    ]
    verdicts = {one["figure"]: one["verdict"] for one in found["stages"][-1]["checks"]}
    assert verdicts["errors"] == "inside"
    assert "outside" in (verdicts["agreement"], verdicts["likelihood"])
    assert champion(folder) == "1"
    assert assigned(folder, "r1")["version"] == "1"
    query = "select value from model_version_tags where key = 'layerwright.rollout_stopped'"
    stopped = json.loads(registered(folder, query))
    told = layerwright("history", NAME, cwd=folder, COLUMNS="200").stdout
    assert not missing(told, "roll-out 1", "version 2", "champion 1", "rolled back", "0%")
    assert stopped["stage"] == "25 %"
    assert stopped["reason"] == found["state"]["reason"]
    assert events(began, lambda event: ended_as(event, "rolled back"))


def killed_in(folder: Path, stage: int) -> list[str]:
    """Kill the command in the middle of a stage; the records that it leaves."""
    rollouts = folder / ".layerwright" / "rollouts"

    def lines() -> list[str]:
        found = [path.read_text() for path in rollouts.glob(f"*/stage-{stage}.jsonl")]
        return "".join(found).splitlines()

    kill_when(lambda said: len(lines()) >= 2, *ARGUMENTS, cwd=folder)
    return lines()


def test_killed_it_goes_on(folder: Path) -> None:
    write_log(folder, 250)
    kept = {stage: killed_in(folder, stage) for stage in (0, 3)}
    assert assigned(folder, "r1") == {
        "model": NAME, "request_id": "r1", "side": "challenger", "version": "2", "share": 1.0,
    }  # fmt: skip
    result = roll_out(folder, embedded=True)  # whose lock the killed one left at once
    assert result.returncode == 0, result.stderr
    assert champion(folder) == "2"
    for stage, lines in kept.items():
        (path,) = (folder / ".layerwright" / "rollouts").glob(f"*/stage-{stage}.jsonl")
        whole = path.read_text().splitlines()
        assert whole[: len(lines)] == lines, "what was measured is not measured again"
        ids = [json.loads(line)["id"] for line in whole]
        assert len(set(ids)) == len(ids)


def test_a_log_that_ends_holds_and_a_longer_one_goes_on(folder: Path) -> None:
    write_log(folder, 30)
    result = roll_out(folder)
    assert result.returncode == 3
    found = last_line(result)
    assert (found["state"]["status"], found["state"]["share"]) == ("inconclusive", 0.05)
    assert found["state"]["reason"].startswith("the log has too few requests: ")
    before = records(folder, 1)

    log = folder / "log.jsonl"
    mine = log.read_text()
    log.write_text(mine.replace("clerk", "cleric"))
    other = roll_out(folder)
    assert other.returncode == 2
    assert not missing(other.stderr, "first 8 requests")
    changed = roll_out(folder, "--set", "rollout.looks=1")
    assert not missing(changed.stderr, "roll-out", "policy")

    log.write_text(mine + "".join(short(i).model_dump_json() + "\n" for i in range(30, 250)))
    whole = last_line(roll_out(folder))
    assert whole["state"]["status"] == "promoted"
    assert records(folder, 1)[: len(before)] == before


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("rollout.stages.1.share=0.9", "rollout"),
        ("price=", "price"),
        ("rollout=", "'rollout'"),
        ("rollout.limits.0.figure=latency_p50", "errors"),
        ("rollout.significance=0.001", "significance"),
        ("rollout.stages.0.requests=900", "900"),
    ],
)
def test_bad_input_starts_nothing(built: Path, setting: str, message: str) -> None:
    write_log(built, 20)
    result = roll_out(built, "--set", setting)
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert not (built / ".layerwright" / "rollouts").exists()
