"""Registering on a real MLflow: new, found again, cut off halfway, and refused."""

import os
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import mlflow
import pytest
from facts import says
from mlflow.tracking import MlflowClient
from register.case import NAME, NOW, Case, accepted, evaluation

from layerwright.tasks.contracts.base import identity
from layerwright.tasks.contracts.evaluation import Measurement
from layerwright.tasks.contracts.promotion import Registration
from layerwright.tasks.contracts.returns import Price
from layerwright.tasks.errors import InputError, IntegrityError, StepError
from layerwright.tasks.recipe.compute import Compute
from layerwright.tasks.recipe.registry import RegisterOptions
from layerwright.tasks.register.registry import RegistrationError
from layerwright.tasks.returns.money import cost_and_return
from layerwright.tasks.tracking import connect

FOUND = Registration(name=NAME, version="1", alias="challenger", found=True)


def download(uri: str, at: str) -> Path:
    mlflow.set_tracking_uri(at)
    return Path(mlflow.artifacts.download_artifacts(uri))


def evidence_models(case: Case) -> list:
    with case.client() as client:
        experiment = client.get_experiment_by_name("layerwright")
        return client.search_logged_models([experiment.experiment_id])


def runs(case: Case) -> list:
    with case.client() as client:
        experiment = client.get_experiment_by_name("layerwright")
        return client.search_runs([experiment.experiment_id])


def nothing_registered(case: Case) -> bool:
    with case.client() as client:
        return not client.search_registered_models() and not client.search_model_versions()


def test_a_new_checkpoint_becomes_version_1_with_its_evidence(case: Case) -> None:
    assert case.register() == FOUND.model_copy(update={"found": False})
    (version,) = case.versions()
    assert (version.status, version.source) == ("READY", case.candidate.uri)
    assert case.alias() == "1"
    expected = {
        "checkpoint_uri": case.candidate.uri,
        "manifest_sha256": case.candidate.sha256,
        "checkpoint_bytes": str(case.candidate.bytes),
        "plan_sha256": identity(case.plan),
        "base_sha256": "b" * 64,
        "decision": "accepted",
        "decided_at": "2026-11-23T12:00:00+00:00",
        "expires_at": "2026-12-23T12:00:00+00:00",
        "run_id": "run-1",
    }
    tags = {key.removeprefix("layerwright."): value for key, value in version.tags.items()}
    assert {key: tags.get(key) for key in expected} == expected
    (model,) = evidence_models(case)
    assert (model.model_id, model.status.value) == (tags["model_id"], "READY")
    assert {m.key: m.value for m in model.metrics} == {
        "base/perplexity.wiki": 20.0,
        "candidate/perplexity.wiki": 20.5,
        "candidate/agreement_8k": 0.9,
    }
    assert [run.info.status for run in runs(case)] == ["FINISHED"]


def test_the_registry_leads_to_checkpoint_and_evidence(case: Case) -> None:
    case.register()
    checkpoint = download(f"models:/{NAME}@challenger", case.uri)
    assert (checkpoint / "nested" / "model.safetensors").read_text() == "weights"
    assert checkpoint == case.model_dir  # in place: nothing was copied
    model_id = case.versions()[0].tags["layerwright.model_id"]
    evidence = download(f"models:/{model_id}", case.uri)
    assert {path.name for path in evidence.iterdir()} == {
        "plan.json", "evaluation.json", "gate.json", "checkpoint.json", "manifest.json",
        "report.html",
    }  # fmt: skip
    assert type(case.plan).model_validate_json((evidence / "plan.json").read_text()) == case.plan
    assert (evidence / "manifest.json").read_bytes() == (
        case.model_dir / "manifest.json"
    ).read_bytes()
    # beside the database, wherever the process works
    assert evidence.is_relative_to(case.page.parent / "mlflow-artifacts")


def test_card_and_money_are_evidence_too(case: Case, tmp_path: Path) -> None:
    card = tmp_path / "card.md"
    card.write_text("---\nlicense: mit\n---\n")
    timed = {"prefill_ms.8": 80.0, "decode_tokens_per_s.8": 10.0, "latency_p50_ms.8+2": 180.0}
    measurements = [
        Measurement(
            metric=metric,
            arm=arm,
            value=value * (1 if arm == "base" else 0.5),
            unit="",
            higher_is_better=False,
        )
        for metric, value in timed.items()
        for arm in ("base", "candidate")
    ]
    cost = cost_and_return(
        measurements, Price(device_hour=36), "cpu", {"convert": 50.0}, {}, (), Compute()
    )
    case.but(card=card, cost=cost).register()
    (version,) = case.versions()
    assert version.tags["layerwright.price_device_hour"] == "36 USD"
    assert version.tags["layerwright.conversion_cost"] == "0.5 USD"
    (model,) = evidence_models(case)
    figures = {m.key: m.value for m in model.metrics if m.key.startswith("cost/")}
    [workload] = cost.workloads
    assert figures == {
        "cost/conversion": 0.5,
        "cost/per_million_tokens.8_2/base": workload.request.base,
        "cost/per_million_tokens.8_2/candidate": workload.request.candidate,
        "cost/break_even_tokens.8_2": workload.break_even_tokens,
    }
    evidence = download(f"models:/{model.model_id}", case.uri)
    assert (evidence / "README.md").read_text() == card.read_text()
    assert type(cost).model_validate_json((evidence / "cost.json").read_text()) == cost


def test_the_same_again_is_found_and_nothing_is_added(case: Case) -> None:
    case.register()
    before = case.versions()[0].tags
    later = case.but(decision=accepted(case.candidate, NOW + timedelta(days=1)))
    assert later.register(run_id="run-2") == FOUND
    (version,) = case.versions()
    assert version.tags == before  # the same measurements judged again do not extend the expiry
    assert (len(evidence_models(case)), len(runs(case))) == (1, 1)


def test_new_measurements_renew_the_same_version(case: Case) -> None:
    case.register()
    again = case.but(
        report=evaluation(case.candidate, perplexity=20.4),
        decision=accepted(case.candidate, NOW + timedelta(days=1)),
    )
    assert again.register(run_id="run-2") == FOUND
    (version,) = case.versions()
    assert version.tags["layerwright.expires_at"] == "2026-12-24T12:00:00+00:00"
    assert version.tags["layerwright.run_id"] == "run-2"
    with case.client() as client:
        model = client.get_logged_model(version.tags["layerwright.model_id"])
    assert 20.4 in {metric.value for metric in model.metrics}


@pytest.mark.parametrize("tags", ["none", "all"])
def test_a_version_that_was_cut_off_is_completed(case: Case, tags: str) -> None:
    """As if killed after the version was made: no alias, and no tags where a server split that."""
    case.register()
    (whole,) = case.versions()
    with case.client() as client:
        client.delete_registered_model_alias(NAME, "challenger")
        for key in whole.tags if tags == "none" else ():
            client.delete_model_version_tag(NAME, "1", key)
    assert case.register() == FOUND
    assert case.alias() == "1"
    assert case.versions()[0].tags == whole.tags


STAGES = ("create_run", "create_logged_model", "log_model_artifacts", "log_batch",
          "finalize_logged_model", "set_terminated", "create_registered_model",
          "create_model_version", "set_registered_model_alias")  # fmt: skip


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("stage", STAGES)
def test_cut_off_at_any_stage_it_is_completed_and_never_doubled(
    case: Case, monkeypatch: pytest.MonkeyPatch, stage: str, after: bool
) -> None:
    call = getattr(MlflowClient, stage)

    def cut(*args, **kwargs):
        if after:
            call(*args, **kwargs)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, stage, cut)
        with pytest.raises(KeyboardInterrupt):
            case.register()
    case.register()
    assert [str(v.version) for v in case.versions()] == ["1"]
    assert case.alias() == "1"
    (model,) = evidence_models(case)
    assert model.status.value == "READY"
    assert len({m.key for m in model.metrics}) == 3
    assert [run.info.status for run in runs(case)] == ["FINISHED"]


def test_evidence_that_was_deleted_is_written_again(case: Case) -> None:
    case.register()
    with case.client() as client:
        client.delete_logged_model(case.versions()[0].tags["layerwright.model_id"])
    assert case.register() == FOUND
    (version,), (model,) = case.versions(), evidence_models(case)
    assert version.tags["layerwright.model_id"] == model.model_id


def test_another_checkpoint_is_version_2_and_the_alias_moves(
    make_case: Callable[..., Case],
) -> None:
    first, second = make_case("weights"), make_case("other weights")
    first.register()
    assert second.register() == Registration(
        name=NAME, version="2", alias="challenger", found=False
    )
    assert second.alias() == "2"
    assert second.versions()[1].tags["layerwright.replaced_version"] == "1"
    assert first.register().version == "1"  # asked for again, it is the challenger again
    assert first.alias() == "1"
    assert len(first.versions()) == 2


def test_a_name_may_hold_a_quote(case: Case) -> None:
    options = RegisterOptions(model_name="Ann's", alias="canary")
    assert case.register(options=options).found is False
    assert case.register(options=options).found is True
    # another name is another version, with the same evidence
    assert case.register() == FOUND.model_copy(update={"found": False})
    assert len(evidence_models(case)) == 1


def test_another_plan_for_the_same_bytes_is_a_version_of_its_own(case: Case) -> None:
    case.register()
    plan = case.plan.model_copy(update={"selector": "by hand"})
    other = case.but(plan=plan, candidate={"plan_sha256": identity(plan)})
    assert other.register().version == "2"


def test_of_two_runs_at_once_one_version_stays(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other run registers between this one's look and its own creation."""
    create = MlflowClient.create_model_version

    def overtaken(self, *args, **kwargs):
        create(self, *args, **kwargs)
        return create(self, *args, **kwargs)

    monkeypatch.setattr(MlflowClient, "create_model_version", overtaken)
    assert case.register().version == "1"
    assert [str(v.version) for v in case.versions()] == ["1"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"decision": {"candidate_sha256": "0" * 64}}, "the gate's decision is about 000"),
        ({"report": {"candidate_sha256": "0" * 64}}, "the evaluation is about 000"),
        ({"report": {"base_sha256": "0" * 64}}, "the evaluation's base is about 000"),
        ({"plan": {"model_sha256": "0" * 64}}, "the plan's base is about 000"),
        ({"plan": {"selector": "other"}}, "the plan is about"),
    ],
)
def test_papers_of_another_checkpoint_are_refused(case: Case, changes, message: str) -> None:
    with pytest.raises(RegistrationError, match=message):
        case.but(**changes).register()
    assert nothing_registered(case)


def test_a_rejected_checkpoint_is_refused(case: Case) -> None:
    failed = case.decision.checks[0].model_copy(update={"passed": False})
    rejected = case.but(decision={"accepted": False, "checks": (failed,)})
    with pytest.raises(RegistrationError, match=says("rejected", "perplexity.wiki")):
        rejected.register()
    assert nothing_registered(case)


def test_an_expired_decision_is_refused(case: Case) -> None:
    with pytest.raises(RegistrationError, match=r"expired at 2026-12-23T12:00:00\+00:00"):
        case.register(now=NOW + timedelta(days=30))
    assert nothing_registered(case)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: flip(folder / "nested" / "model.safetensors"),
        lambda folder: flip(folder / "manifest.json"),
        lambda folder: (folder / "config.json").unlink(),
        lambda folder: (folder / "manifest.json").unlink(),
    ],
    ids=["weights", "manifest", "missing file", "missing manifest"],
)
def test_a_spoiled_tree_is_refused(case: Case, spoil: Callable[[Path], None]) -> None:
    spoil(case.model_dir)
    with pytest.raises(IntegrityError):
        case.register()
    assert nothing_registered(case)


def test_a_registered_checkpoint_that_spoiled_is_not_found_good(case: Case) -> None:
    case.register()
    flip(case.model_dir / "nested" / "model.safetensors")
    with pytest.raises(IntegrityError, match=r"model\.safetensors"):
        case.register()


def test_a_server_cannot_be_pointed_at_a_folder_of_this_machine(case: Case) -> None:
    with pytest.raises(InputError, match="this machine") as error:
        case.but(uri="http://127.0.0.1:9").register()
    assert error.value.where == "registry.tracking_uri"
    assert "s3://" in error.value.remedy


def test_a_server_that_is_not_there_is_a_step_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with (
        pytest.raises(StepError, match=r"MLflow at http://127\.0\.0\.1:9"),
        connect("http://127.0.0.1:9") as client,
    ):
        client.search_registered_models()


def test_no_model_library_is_needed(case: Case) -> None:
    """The weights are not loaded: neither torch nor transformers is imported to register."""
    program = (
        "import sys, layerwright.tasks.register.registry, layerwright.tasks.tracking as c\n"
        f"with c.connect({case.uri!r}) as client: client.search_registered_models()\n"
        "print({'torch', 'transformers', 'prefect'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "set()"


def test_of_two_first_versions_at_once_none_is_lost(
    make_case: Callable[..., Case], monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL refused one of two runs that both found no alias and inserted it."""
    first, second = make_case("one"), make_case("two")
    first.register()
    with first.client() as client:
        client.delete_registered_model_alias(NAME, "challenger")
    point, calls = MlflowClient.set_registered_model_alias, []

    def overtaken(self: MlflowClient, name: str, alias: str, version: str) -> None:
        calls.append(version)
        if len(calls) == 1:
            point(self, name, alias, "1")  # the other run is a moment earlier
            raise mlflow.MlflowException("BAD_REQUEST: duplicate key value")
        point(self, name, alias, version)

    monkeypatch.setattr(MlflowClient, "set_registered_model_alias", overtaken)
    assert second.register(run_id="run-2").version == "2"
    assert calls == ["2", "2"]
    assert second.alias() == "2"
