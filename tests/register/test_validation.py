"""MLflow's own validation of the thresholds: it says what the gate says."""

import math

import pytest
from facts import says
from gate.evidence import NOW, bits, evidence, judge, plain
from hypothesis import given, settings
from hypothesis import strategies as st
from register.case import Case

from layerwright.tasks.contracts.evaluation import EvalReport
from layerwright.tasks.contracts.gate import GateDecision, Waiver
from layerwright.tasks.gate.policy import decide
from layerwright.tasks.recipe.gate import GatePolicy, GateRule
from layerwright.tasks.register.registry import RegistrationError, refused_by_mlflow

RULES = (
    GateRule(metric="kv_bytes.*", max=0.6),
    GateRule(metric="key", compare="difference", min=-0.5),
    GateRule(metric="recall.x", compare="value", min=0.75),
    GateRule(metric="speed", min=1.0, severity="warn"),
)
EMPTY = EvalReport(base_sha256="b" * 64, candidate_sha256="c" * 64, device="cpu", measurements=())
figures = st.none() | st.floats(-2, 2, allow_nan=False) | st.sampled_from([0.6, -0.5, 0.75, 0.0])


def decided(base: dict, candidate: dict) -> GateDecision:
    report = plain(plain(EMPTY, "base", **base), "candidate", **candidate)
    return decide(report, (), GatePolicy(rules=RULES), NOW)


@settings(max_examples=60, deadline=None)
@given(kv=figures, key=figures, recall=figures, speed=figures)
def test_it_accepts_and_refuses_as_the_gate_does(kv, key, recall, speed) -> None:
    base = {"kv_bytes__8k": 1.0, "key": -0.2, "recall__x": 0.9, "speed": 1.0}
    mine = {"kv_bytes__8k": kv, "key": key, "recall__x": recall, "speed": speed}
    decision = decided(base, mine)
    message = refused_by_mlflow(decision)
    assert (message == "") == decision.accepted
    for check in decision.rejecting:
        assert check.metric in message
        missing = "was missing from the evaluation result"
        assert (missing in message) or check.value is not None


def test_bounds_and_waivers_count_as_in_the_gate() -> None:
    given = evidence(
        base={"recall.x": bits(100, 95), "recall.y": bits(100, 95)},
        candidate={"recall.x": bits(100, 95), "recall.y": bits(100, 60)},
    )
    bound = GateRule(metric="recall.x", min=0.9, on="bound")
    lost = GateRule(metric="recall.y", min=0.9, on="bound")
    assert refused_by_mlflow(judge(given, bound)) == ""
    assert "recall.y" in refused_by_mlflow(judge(given, bound, lost))
    waiver = Waiver(metric="recall.y", author="a", reason="b", expires="2027-01-01")
    assert refused_by_mlflow(judge(given, bound, lost, waivers=(waiver,))) == ""


def test_an_accepted_decision_that_mlflow_refuses_is_not_registered(case: Case) -> None:
    forged = case.decision.checks[0].model_copy(update={"margin": -0.1})
    assert math.isclose(forged.limit - forged.margin, 1.15)
    with pytest.raises(RegistrationError, match=says("MLflow", "perplexity.wiki", "1.05")):
        case.but(decision={"checks": (forged,)}).register()
    assert case.versions() == []


def test_the_version_says_how_it_was_judged(case: Case) -> None:
    waiver = Waiver(metric="perplexity.*", author="A. Person", reason="r", expires="2026-12-01")
    waived = case.decision.checks[0].model_copy(update={"passed": False, "waiver": waiver})
    decision = {"checks": (*case.decision.checks, waived), "tier": "standard"}
    case.but(decision=decision).register()
    tags = case.versions()[0].tags
    assert tags["layerwright.gate_tier"] == "standard"
    assert tags["layerwright.gate_checks"] == "1 passed, 0 warned, 1 waived"
    assert tags["layerwright.gate_waivers"] == ("perplexity.wiki by A. Person until 2026-12-01: r")
