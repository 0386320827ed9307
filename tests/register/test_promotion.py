"""From challenger to champion on a real registry: what must be shown, and what is kept of it."""

from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
from facts import says
from register.case import NAME, NOW, OPTIONS, Case, accepted, crown, cut_off, evaluation

from layerwright.tasks.contracts.evaluation import Champion
from layerwright.tasks.contracts.gate import Waiver
from layerwright.tasks.contracts.promotion import Approval, Move
from layerwright.tasks.errors import InputError, IntegrityError, StepError
from layerwright.tasks.recipe.registry import ApprovalPolicy
from layerwright.tasks.register.moves import PromotionError, moves_to, verify_tree
from layerwright.tasks.register.promotion import approved_by_policy, promotable, promote_version
from layerwright.tasks.register.versions import Address, checkpoint_of
from layerwright.tasks.store.local import LocalStore

ANN = Approval(by="Ann", reason="it is cheaper")
CHALLENGER = Address(NAME, alias="challenger")
TOMORROW = NOW + timedelta(days=1)


def promote(case: Case, address: Address = CHALLENGER, now: datetime = TOMORROW) -> Move | None:
    with case.client() as client:
        return promote_version(client, address, "champion", ANN, now)


def champion(case: Case) -> str | None:
    with case.client() as client:
        found = client.get_registered_model(NAME).aliases.get("champion")
    return None if found is None else str(found)


def beside(case: Case, version: str) -> Case:
    """The same case, measured beside a champion."""
    reference = Champion(version=version, checkpoint=case.candidate)
    return case.but(report=case.report.model_copy(update={"champion": reference}))


def test_the_first_champion_replaces_none(case: Case) -> None:
    case.register()
    move = promote(case)
    assert (move.action, move.version, move.before) == ("promoted", "1", None)
    assert (move.by, move.reason, move.how) == ("Ann", "it is cheaper", "person")
    assert move.finished_at is not None
    assert champion(case) == "1"
    (version,) = case.versions()
    assert list(moves_to(version).values()) == [move]
    assert promote(case) is None, "it is the champion already"
    with case.client() as client:  # nobody is asked then
        assert promote_version(client, CHALLENGER, "champion", None, TOMORROW) is None
    assert len(moves_to(case.versions()[0])) == 1


def test_one_that_was_compared_with_the_champion_replaces_it(
    make_case: Callable[..., Case],
) -> None:
    first, second = make_case("weights"), make_case("other weights")
    first.register()
    promote(first)
    beside(second, "1").register()
    move = promote(second)
    assert (move.version, move.before) == ("2", "1")
    assert champion(second) == "2"


@pytest.mark.parametrize(
    ("compared", "crowned", "message"),
    [
        (None, "1", "the champion is version 1 now, but .* version 3.*with no champion"),
        ("2", "1", "the champion is version 1 now, but .* version 3.*with version 2"),
        ("1", None, "there is no champion now, but .* version 3.*with version 1"),
    ],
)
def test_another_champion_than_the_one_compared_is_refused(
    make_case: Callable[..., Case], compared, crowned, message: str
) -> None:
    cases = [make_case(f"weights {i}") for i in range(3)]
    for other in cases[:2]:
        other.register()
    if crowned:
        crown(cases[0], crowned)
    (beside(cases[2], compared) if compared else cases[2]).register()
    with pytest.raises(PromotionError, match=message) as refused:
        promote(cases[2])
    assert "requalify" in str(refused.value)
    assert champion(cases[2]) == crowned


def test_a_champion_that_could_not_be_measured_was_not_compared(
    make_case: Callable[..., Case],
) -> None:
    first, second = make_case("weights"), make_case("other weights")
    first.register()
    promote(first)
    absent = {"champion": Champion(version="1", reason="the store does not have it")}
    second.but(report=absent).register()
    with pytest.raises(PromotionError, match="compared with no champion"):
        promote(second)


def test_an_expired_decision_is_refused(case: Case) -> None:
    case.register()
    with pytest.raises(PromotionError, match=r"expired at 2026-12-23T12:00:00\+00:00"):
        promote(case, now=NOW + timedelta(days=30))
    assert champion(case) is None
    assert promote(case, now=NOW + timedelta(days=30, seconds=-1))


def test_a_decision_from_the_future_is_refused(case: Case) -> None:
    case.register()
    with pytest.raises(PromotionError, match="in the future"):
        promote(case, now=NOW - timedelta(minutes=6))
    assert promote(case, now=NOW - timedelta(minutes=4)), "clocks drift"


def test_a_rejection_after_registration_counts(case: Case) -> None:
    """As a requalification writes it."""
    case.register()
    tags = {"decision": "rejected", "decided_at": TOMORROW.isoformat(), "run_id": "again"}
    tags |= {"expires_at": (TOMORROW + timedelta(days=9)).isoformat(), "compared_champion": "none"}
    with case.client() as client:
        for name, value in tags.items():
            client.set_model_version_tag(NAME, "1", f"layerwright.requalified_{name}", value)
    with pytest.raises(PromotionError, match=says("rejected", "version 1", "tiny", "again")):
        promote(case, now=TOMORROW + timedelta(days=1))


def test_a_version_that_is_not_ready_is_refused(case: Case) -> None:
    case.register()
    from sqlalchemy import create_engine, text

    with create_engine(case.uri).begin() as database:
        database.execute(text("update model_versions set status = 'PENDING_REGISTRATION'"))
    with pytest.raises(PromotionError, match=says("PENDING_REGISTRATION", "READY")):
        promote(case)


def test_a_version_without_its_tags_is_refused(case: Case) -> None:
    case.register()
    with case.client() as client:
        client.delete_model_version_tag(NAME, "1", "layerwright.manifest_sha256")
    with pytest.raises(StepError, match=says("tags", "manifest_sha256")):
        promote(case)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("other@challenger", "has no model 'other'"),
        (f"{NAME}@canary", "no alias 'canary'"),
        (f"{NAME}/7", "no version 7"),
        (NAME, "has no version"),
    ],
)
def test_what_is_not_there_is_told(case: Case, address: str, message: str) -> None:
    case.register()
    with pytest.raises(InputError, match=message):
        promote(case, Address.parse(address))


@pytest.mark.parametrize("text", ["", "a/b", "a@b@c", "a:1", "a/1/2"])
def test_an_address_is_a_name_an_alias_or_a_version(text: str) -> None:
    with pytest.raises(InputError, match="is not the address of a registered model"):
        Address.parse(text)


def test_every_byte_is_read_again(case: Case, tmp_path) -> None:
    case.register()
    checkpoint = checkpoint_of(case.versions()[0])
    verify_tree(checkpoint, tmp_path)
    weights = case.model_dir / "nested" / "model.safetensors"
    weights.write_text("WEIGHTS")
    with pytest.raises(IntegrityError, match=r"model\.safetensors"):
        verify_tree(checkpoint, tmp_path)
    elsewhere = checkpoint.model_copy(update={"uri": LocalStore(tmp_path / "s").tree_uri("0" * 64)})
    with pytest.raises(IntegrityError, match="no such tree"):
        verify_tree(elsewhere, tmp_path)


@pytest.mark.parametrize("after", [False, True], ids=["before the alias moved", "after"])
def test_a_promotion_that_was_cut_off_is_finished(
    case: Case, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    case.register()
    with cut_off(monkeypatch, after=after):
        promote(case)
    (begun,) = moves_to(case.versions()[0]).values()
    assert begun.finished_at is None
    move = promote(case)
    assert (move.before, move.finished_at is not None) == (None, True)
    assert champion(case) == "1"
    kept = list(moves_to(case.versions()[0]).values())
    assert kept[-1] == move
    assert len(kept) == (1 if after else 2)


def test_an_alias_that_somebody_else_moves_is_noticed(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.tracking import MlflowClient

    case.register()
    monkeypatch.setattr(MlflowClient, "set_registered_model_alias", lambda *a, **k: None)
    with pytest.raises(StepError, match=says("version 1", "None")):
        promote(case)


POLICY = ApprovalPolicy(author="platform team", reason="nightly")


def test_a_policy_approves_what_it_asks_for(case: Case) -> None:
    case.but(decision={"tier": "standard"}).register()
    with case.client() as client:
        found = promotable(client, CHALLENGER, "champion", TOMORROW)
    strict = POLICY.model_copy(update={"tiers": ("lossless", "standard"), "max_age_days": 1.0})
    assert approved_by_policy(strict, found, TOMORROW) == Approval(
        by="platform team", reason="nightly", how="policy"
    )
    with pytest.raises(PromotionError, match=says("1.5 days", "1")):
        approved_by_policy(strict, found, TOMORROW + timedelta(days=0.5))
    lossless = POLICY.model_copy(update={"tiers": ("lossless",)})
    with pytest.raises(PromotionError, match=says("standard", "lossless")):
        approved_by_policy(lossless, found, TOMORROW)


def test_a_policy_does_not_approve_waivers_unless_it_says_so(case: Case) -> None:
    waiver = Waiver(metric="x", author="Bo", reason="r", expires="2026-12-01")
    waived = case.decision.checks[0].model_copy(update={"passed": False, "waiver": waiver})
    case.but(decision={"checks": (*case.decision.checks, waived)}).register()
    with case.client() as client:
        found = promotable(client, CHALLENGER, "champion", TOMORROW)
    with pytest.raises(PromotionError, match=says("waivers", "perplexity.wiki", "Bo")):
        approved_by_policy(POLICY, found, TOMORROW)
    assert approved_by_policy(POLICY.model_copy(update={"waivers": True}), found, TOMORROW)


def test_new_measurements_beside_the_new_champion_make_it_promotable(
    make_case: Callable[..., Case],
) -> None:
    first, second = make_case("weights"), make_case("other weights")
    first.register()
    second.register()
    promote(first, Address(NAME, version="1"))
    with pytest.raises(PromotionError, match="compared with no champion"):
        promote(second)
    again = second.but(report=evaluation(second.candidate, perplexity=20.4))
    beside(again.but(decision=accepted(second.candidate, NOW)), "1").register(options=OPTIONS)
    assert promote(second).before == "1"
