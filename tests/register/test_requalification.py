"""A later decision on a registered version: kept as a run of its own, and counted from then on."""

from datetime import timedelta

from register.case import NAME, NOW, Case, accepted, evaluation

from layerwright.tasks.contracts.gate import GateDecision
from layerwright.tasks.contracts.requalification import TrendPoint
from layerwright.tasks.register.decisions import standing_decision
from layerwright.tasks.register.requalification import (
    record_requalification,
    registered_figures,
    trend_of,
)

LATER = NOW + timedelta(days=2)


def rejected(case: Case) -> GateDecision:
    decision = accepted(case.candidate, LATER)
    failed = decision.checks[0].model_copy(update={"passed": False})
    return decision.model_copy(update={"accepted": False, "checks": (failed,)})


def requalify(case: Case, decision: GateDecision, run_id: str, perplexity: float = 21.0) -> None:
    report = evaluation(case.candidate, perplexity)
    with case.client() as client:
        version = client.get_model_version(NAME, "1")
        record_requalification(client, version, report, decision, run_id, (), case.page)


def test_the_later_decision_counts_and_the_registration_stays(case: Case) -> None:
    case.register()
    before = case.versions()[0]
    requalify(case, rejected(case), "nightly-1")
    (version,) = case.versions()
    assert before.tags.items() <= version.tags.items()
    standing = standing_decision(version)
    assert (standing.accepted, standing.run_id) == (False, "nightly-1")
    assert standing.decided_at == LATER
    requalify(case, accepted(case.candidate, LATER + timedelta(days=1)), "nightly-2", 20.1)
    assert standing_decision(case.versions()[0]).accepted


def test_new_evidence_of_a_conversion_is_the_later_decision_again(case: Case) -> None:
    case.register()
    requalify(case, rejected(case), "nightly-1")
    case.register()
    assert not standing_decision(case.versions()[0]).accepted, "the same evidence as before"
    newer = LATER + timedelta(days=1)
    case.but(
        report=evaluation(case.candidate, 20.4), decision=accepted(case.candidate, newer)
    ).register(run_id="run-2")
    standing = standing_decision(case.versions()[0])
    assert (standing.accepted, standing.run_id) == (True, "run-2")


def test_the_same_measurements_do_not_extend_the_expiry(case: Case) -> None:
    case.register()
    requalify(case, accepted(case.candidate, LATER), "nightly-1")
    requalify(case, accepted(case.candidate, LATER + timedelta(days=9)), "nightly-2")
    standing = standing_decision(case.versions()[0])
    assert (standing.run_id, standing.decided_at) == ("nightly-1", LATER)


def test_every_requalification_is_a_point_of_the_trend(case: Case) -> None:
    case.register()
    with case.client() as client:
        version = client.get_model_version(NAME, "1")
        assert trend_of(client, version) == ()
        assert registered_figures(client, version) == {
            "perplexity.wiki": 20.5,
            "agreement_8k": 0.9,
        }
    requalify(case, accepted(case.candidate, LATER), "nightly-1", 21.0)
    requalify(case, rejected(case), "nightly-2", 24.0)
    with case.client() as client:
        points = trend_of(client, version)
        experiment = client.get_experiment_by_name("layerwright-requalification")
        (newest, _) = client.search_runs([experiment.experiment_id])
        artifacts = [file.path for file in client.list_artifacts(newest.info.run_id)]
    assert [(p.run_id, p.decision, p.values["perplexity.wiki"]) for p in points] == [
        ("nightly-1", "accepted", 21.0),
        ("nightly-2", "rejected", 24.0),
    ]
    assert all(isinstance(point, TrendPoint) for point in points)
    assert artifacts == ["report.html"]
