"""Roll-outs on a real registry: where one begins, goes on, or is refused."""

from datetime import timedelta

import pytest
from facts import says
from register.case import NAME, NOW, OPTIONS, Case, crown

from layerwright.tasks.contracts.evaluation import Champion
from layerwright.tasks.contracts.rollout import Request
from layerwright.tasks.errors import InputError
from layerwright.tasks.recipe.registry import ApprovalPolicy
from layerwright.tasks.recipe.rollout import RolloutLimit, RolloutPolicy
from layerwright.tasks.register.moves import PromotionError
from layerwright.tasks.register.promotion import approved_by_policy, promotable
from layerwright.tasks.register.versions import Address
from layerwright.tasks.rollout.stage import rolled_back, stopped
from layerwright.tasks.rollout.start import open_rollout
from layerwright.tasks.rollout.state import live_share, mark_stopped, read_state, write_state

POLICY = RolloutPolicy(
    approval=ApprovalPolicy(author="team", reason="staged"),
    limits=(RolloutLimit(figure="errors", limit=0.1),),
)
LOG = [Request(id=str(index), prompt="a") for index in range(3)]
LATER = NOW + timedelta(hours=1)


@pytest.fixture
def two(make_case) -> Case:
    """Version 1 is champion, version 2 was compared with it."""
    first = make_case("one")
    first.register()
    crown(first, "1")
    second = make_case("two")
    beside = Champion(version="1", checkpoint=first.candidate)
    second = second.but(report={"champion": beside})
    second.register()
    return second


def opened(case: Case, policy=POLICY, requests=LOG, **options):
    with case.client() as client:
        return open_rollout(client, NAME, OPTIONS, policy, requests, now=LATER, **options)


def written(case: Case, state):
    with case.client() as client:
        write_state(client, state)
        return live_share(client, NAME, "champion")


def test_it_begins_in_shadow_and_goes_on(two: Case) -> None:
    state = opened(two)
    assert (state.champion, state.challenger, state.share, state.attempt) == ("1", "2", 0, 1)
    assert opened(two) == state
    at_five = state.model_copy(update={"stage": 1, "share": 0.05})
    live = written(two, at_five)
    assert (live.champion, live.challenger, live.share) == ("1", "2", 0.05)
    assert opened(two) == at_five
    with pytest.raises(InputError, match="policy"):
        opened(two, POLICY.model_copy(update={"looks": 2}))
    written(two, at_five.model_copy(update={"begin": 2}))
    with pytest.raises(InputError, match="2 requests"):
        opened(two)


def test_a_champion_moved_by_another_ends_the_share(two: Case) -> None:
    written(two, opened(two).model_copy(update={"share": 0.25}))
    crown(two, "2")
    with two.client() as client:
        live = live_share(client, NAME, "champion")
    assert (live.champion, live.challenger, live.share) == ("2", None, 0)


def test_what_was_rolled_back_comes_back_by_a_person_alone(two: Case) -> None:
    state = rolled_back(opened(two).model_copy(update={"stage": 2}), "slower", LATER)
    with two.client() as client:
        mark_stopped(client, state, stopped(state, POLICY))
    assert written(two, state).share == 0
    assert opened(two) == state, "as it ended"
    with two.client() as client:
        found = promotable(client, Address(NAME, version="2"), "champion", LATER)
    with pytest.raises(PromotionError, match=says("25 %", "slower")):
        approved_by_policy(POLICY.approval, found, LATER)

    again = opened(two, restart=True)
    assert (again.attempt, again.status, again.share) == (2, "running", 0)
    with two.client() as client:
        found = promotable(client, Address(NAME, version="2"), "champion", LATER)
        assert read_state(client, NAME) == again
    assert approved_by_policy(POLICY.approval, found, LATER).how == "policy"


def test_without_a_champion_there_is_nothing_to_compare_with(case: Case) -> None:
    case.register()
    with pytest.raises(PromotionError, match=says("champion", "no")):
        opened(case)
    crown(case, "1")
    with pytest.raises(PromotionError, match=says("champion", "already")):
        opened(case)
