"""The champion goes back, on a real registry."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from facts import says
from register.case import NAME, NOW, Case, crown, cut_off

from layerwright.tasks.contracts.promotion import Approval, Move
from layerwright.tasks.errors import InputError
from layerwright.tasks.recipe.registry import ApprovalPolicy
from layerwright.tasks.register.history import history_of
from layerwright.tasks.register.moves import PromotionError, plan_rollback, roll_back
from layerwright.tasks.register.promotion import approved_by_policy, promotable, promote_version
from layerwright.tasks.register.versions import Address
from layerwright.tasks.tracking import connect

ANN = Approval(by="Ann", reason="complaints")
LONG_AFTER = NOW + timedelta(days=400)


def back(case: Case, to: str | None = None) -> Move:
    with case.client() as client:
        plan = plan_rollback(client, NAME, "champion", to)
        return roll_back(client, plan, "champion", ANN)


@pytest.fixture
def three(make_case: Callable[..., Case]) -> Case:
    """Versions 1 to 3, promoted one after the other."""
    cases = [make_case(f"weights {i}") for i in range(3)]
    for number, case in enumerate(cases, 1):
        case.register()
        with case.client() as client:
            compared = str(number - 1) if number > 1 else "none"
            tag = "layerwright.compared_champion"
            client.set_model_version_tag(NAME, str(number), tag, compared)
            promote_version(client, Address(NAME, version=str(number)), "champion", ANN, NOW)
    return cases[0]


def test_it_goes_back_one_by_one_and_not_forth(three: Case) -> None:
    assert [(m.before, m.version) for m in (back(three), back(three))] == [("3", "2"), ("2", "1")]
    with pytest.raises(PromotionError, match=says("version 1", "first")):
        back(three)
    # an earlier champion by name, though its successor was rolled back
    assert back(three, "3").version == "3"


def test_the_whole_story_is_told(three: Case) -> None:
    back(three)
    with three.client() as client:
        told = history_of(client, NAME, "champion", LONG_AFTER)
    assert told.champion == "2"
    assert [(m.action, m.before, m.version) for m in told.moves] == [
        ("promoted", None, "1"),
        ("promoted", "1", "2"),
        ("promoted", "2", "3"),
        ("rolled back", "3", "2"),
    ]
    assert {(m.by, m.reason) for m in told.moves} == {("Ann", "complaints")}
    assert all(m.finished_at for m in told.moves)
    states = {v.version: (v.aliases, v.state) for v in told.versions}
    assert states["2"] == (("champion",), "the champion")
    assert states["3"][0] == ("challenger",)
    assert "expired" in states["3"][1]
    with pytest.raises(InputError, match="'other'"), three.client() as client:
        history_of(client, "other", "champion", NOW)


def test_a_name_with_a_quote_has_a_history(case: Case) -> None:
    from layerwright.tasks.recipe.registry import RegisterOptions

    case.register(options=RegisterOptions(model_name="Ann's"))
    with connect(case.uri) as client:
        told = history_of(client, "Ann's", "champion", NOW)
    assert [v.state for v in told.versions] == ["may be promoted"]


def test_only_a_former_champion_is_gone_back_to(three: Case, make_case) -> None:
    make_case("never promoted").register()
    with pytest.raises(PromotionError, match=says("version 4", "tiny", "champion", "never")):
        back(three, "4")
    with pytest.raises(PromotionError, match=says("version 3", "tiny", "champion")):
        back(three, "3")
    with pytest.raises(InputError, match="no version 9"):
        back(three, "9")


def test_without_a_recorded_promotion_there_is_nothing_to_go_back_to(case: Case) -> None:
    case.register()
    with pytest.raises(InputError, match=says("alias", "'champion'")):
        back(case)
    crown(case, "1")
    with pytest.raises(PromotionError, match=says("promoted", "Layerwright")):
        back(case)


@pytest.mark.parametrize("after", [False, True], ids=["before the alias moved", "after"])
def test_one_that_was_cut_off_goes_no_further_back(
    three: Case, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    with cut_off(monkeypatch, after=after):
        back(three)
    move = back(three)
    assert (move.before, move.version) == ("3", "2")
    with three.client() as client:
        assert str(client.get_registered_model(NAME).aliases["champion"]) == "2"


def test_a_champion_that_changed_meanwhile_stays(three: Case) -> None:
    with three.client() as client:
        plan = plan_rollback(client, NAME, "champion", None)
        crown(three, "1")
        with pytest.raises(PromotionError, match=says("version 3", "rollback", "1")):
            roll_back(client, plan, "champion", ANN)


def test_a_policy_does_not_bring_back_what_was_rolled_back(
    three: Case,
) -> None:
    back(three)
    policy = ApprovalPolicy(author="team", reason="nightly")
    with three.client() as client:
        client.set_model_version_tag(NAME, "3", "layerwright.compared_champion", "2")
        found = promotable(client, Address(NAME, version="3"), "champion", NOW)
        with pytest.raises(PromotionError, match=says("Ann", "complaints")):
            approved_by_policy(policy, found, NOW)
        # a person may
        assert promote_version(client, found.address, "champion", ANN, NOW).version == "3"
