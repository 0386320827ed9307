"""Promotion and rollback as a user and a deployment drive them."""

import threading
import time
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path

import pytest
from facts import missing, says
from in_process import placed
from layerwright_process import Forked, environment, last_line, layerwright
from prefect.client.orchestration import get_client
from prefect.exceptions import ParameterTypeError
from prefect_events import events
from register.case import NAME, Case, build_case
from tiny_checkpoint import write_tiny_inputs

from layerwright.flows.command_line.champions import approval_from
from layerwright.flows.promote import promote
from layerwright.flows.session.champion import Registry
from layerwright.tasks.contracts.evaluation import Champion
from layerwright.tasks.contracts.promotion import Approval
from layerwright.tasks.errors import InputError
from layerwright.tasks.recipe.registry import ApprovalPolicy
from layerwright.tasks.register.moves import PromotionError

APPROVED = ("--approve-by", "Ann", "--reason", "it is cheaper")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with versions 1 and 2, both judged before there was a champion."""
    home = tmp_path / ".layerwright"
    home.mkdir()
    for weights in ("one", "two"):
        add_version(home, weights)
    return home


def add_version(home: Path, weights: str, champion: str | None = None) -> Case:
    now = datetime.now(UTC)
    case = build_case(home, weights, now)
    if champion:
        reference = Champion(version=champion, checkpoint=case.candidate)
        case = case.but(report={"champion": reference})
    case.register(now)
    return case


def test_a_champion_is_made_replaced_and_brought_back(home: Path) -> None:
    folder = home.parent
    began = datetime.now(UTC)
    made = layerwright("promote", NAME, "--version", "1", *APPROVED, "--json", cwd=folder)
    assert made.returncode == 0, made.stderr
    move = last_line(made)
    assert (move["moved"], move["version"], move["before"]) == (True, "1", None)

    refused = layerwright("promote", NAME, *APPROVED, cwd=folder)
    assert refused.returncode == 3
    assert not missing(refused.stderr, "version 1", "champion", "version 2")
    assert "Traceback" not in refused.stderr

    third = add_version(home, "three", champion="1")
    assert layerwright("promote", NAME, *APPROVED, cwd=folder).returncode == 0
    back = layerwright("rollback", NAME, "--by", "Bo", "--reason", "complaints", cwd=folder)
    assert back.returncode == 0, back.stderr
    assert "version 3 -> version 1" in back.stdout

    told = last_line(layerwright("history", NAME, "--json", cwd=folder))
    assert told["champion"] == "1"
    assert [(m["action"], m["before"], m["version"], m["by"]) for m in told["moves"]] == [
        ("promoted", None, "1", "Ann"),
        ("promoted", "1", "3", "Ann"),
        ("rolled back", "3", "1", "Bo"),
    ]
    assert "complaints" in layerwright("history", NAME, cwd=folder).stdout
    said = events(began, lambda event: event[0] == "layerwright.rolled-back")
    assert [(name, payload["move"]["version"]) for name, payload in said] == [
        ("layerwright.promoted", "1"),
        ("layerwright.promoted", "3"),
        ("layerwright.rolled-back", "1"),
    ]
    assert said[1][1]["checkpoint_uri"] == third.candidate.uri
    assert not list(home.glob("verify-*")), "nothing is left of the verification"


def test_of_two_promotions_at_once_one_wins(home: Path) -> None:
    commands = [("promote", NAME, "--version", v, *APPROVED, "--json") for v in "12"]
    running = [Forked(command, home.parent, environment()) for command in commands]
    ended = [process.communicate() for process in running]
    statuses = [one.returncode for one in ended]
    assert sorted(statuses) == [0, 3], ended
    winner = statuses.index(0)
    version = str(winner + 1)
    assert last_line(ended[winner])["version"] == version
    assert not missing(ended[1 - winner].stderr, f"version {version}", "champion")
    told = last_line(layerwright("history", NAME, "--json", cwd=home.parent))
    assert told["champion"] == version
    assert len(told["moves"]) == 1


def test_a_spoiled_checkpoint_does_not_become_champion(home: Path) -> None:
    for path in home.glob("store/trees/*/nested/model.safetensors"):
        path.write_text("other")
    spoiled = layerwright("promote", NAME, "--version", "1", *APPROVED, cwd=home.parent)
    assert spoiled.returncode == 1
    assert not missing(spoiled.stderr, "model.safetensors", "manifest")
    assert last_line(layerwright("history", NAME, "--json", cwd=home.parent))["champion"] is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "approval"),
        ({"approve_by": "Ann", "reason": "r", "ask": True}, "--ask"),
        ({"approve_by": "Ann"}, "--reason"),
        ({"ask": True}, "--ask"),
        ({"recipe": Path("recipe.yaml")}, "recipe"),
    ],
)
def test_one_approval_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: dict, message: str
) -> None:
    write_tiny_inputs(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    with pytest.raises(InputError, match=message):
        approval_from(
            **({"approve_by": None, "reason": None, "recipe": None, "ask": False} | given)
        )


def test_a_recipes_policy_approves(tmp_path: Path) -> None:
    recipe = write_tiny_inputs(tmp_path)
    policy = "  approval: {author: team, reason: nightly, tiers: [standard]}\n"
    recipe.write_text(recipe.read_text().replace("registry:\n", f"registry:\n{policy}"))
    assert approval_from(None, None, recipe, False) == ApprovalPolicy(
        author="team", reason="nightly", tiers=("standard",)
    )


def test_a_registry_that_is_not_there_is_told_and_not_made(home: Path) -> None:
    result = layerwright("history", NAME, "--home", "elsewhere", cwd=home.parent)
    assert result.returncode == 2
    assert not missing(result.stderr, "no registry")
    assert not (home.parent / "elsewhere").exists()


def answer_the_pause(approved: bool) -> None:
    """What a person does in Prefect's page, as soon as a flow run waits for it."""
    with get_client(sync_client=True) as client:
        while True:
            paused = [run for run in client.read_flow_runs() if run.state and run.state.is_paused()]
            if paused:
                said = {"approved": approved, "by": "Cy", "reason": "looked at it"}
                client.resume_flow_run(paused[0].id, run_input=said)
                return
            time.sleep(0.2)


@pytest.mark.parametrize("approved", [True, False])
def test_a_person_answers_in_prefect(home: Path, approved: bool) -> None:
    where = Registry(home=str(home), tracking_uri=f"sqlite:///{home}/mlflow.db")
    refused = pytest.raises(PromotionError, match=says("Cy", "tiny/1", "looked at it"))
    with placed(home.parent, environment()):
        thread = threading.Thread(target=answer_the_pause, args=(approved,))
        thread.start()
        with nullcontext() if approved else refused:
            move = promote("tiny", where, version="1", approval="ask", wait_seconds=120)
            assert (move.by, move.reason, move.how) == ("Cy", "looked at it", "person")
        thread.join()
    told = last_line(layerwright("history", NAME, "--json", cwd=home.parent))
    assert told["champion"] == ("1" if approved else None)


@pytest.mark.parametrize(
    ("approval", "kind"),
    [
        ({"by": "Ann", "reason": "r"}, Approval),
        ({"author": "team", "reason": "r", "tiers": ["lossless"]}, ApprovalPolicy),
        ("ask", str),
    ],
)
def test_a_deployment_gives_its_parameters_as_json(approval, kind) -> None:
    where = {"home": "/home", "tracking_uri": "http://mlflow"}
    given = {"model": "tiny", "registry": where, "approval": approval}
    read = promote.validate_parameters(given)
    assert type(read["approval"]) is kind
    assert read["registry"].champion == "champion"
    with pytest.raises(ParameterTypeError):
        promote.validate_parameters(given | {"approval": {"reason": "nobody said so"}})
