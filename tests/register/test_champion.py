"""The champion: found by its alias in a real registry, and what keeps it from being measured."""

from collections.abc import Callable

import pytest
from register.case import NAME, OPTIONS, Case, crown

from layerwright.tasks.contracts.evaluation import Champion
from layerwright.tasks.register.versions import current_champion
from layerwright.tasks.store.local import LocalStore


def champion(case: Case, **changes) -> Champion | None:
    where = {
        "tracking_uri": case.uri,
        "base_sha256": case.candidate.base_sha256,
        "store": case.store,
    }
    return current_champion(OPTIONS, **(where | changes))


def test_there_is_none_before_one_is_crowned(case: Case) -> None:
    assert champion(case) is None
    case.register()
    assert champion(case) is None


def test_the_alias_leads_to_the_checkpoint(make_case: Callable[..., Case]) -> None:
    first, second = make_case("weights"), make_case("other weights")
    first.register()
    second.register()
    crown(first, "1")
    assert champion(first) == Champion(version="1", checkpoint=first.candidate)
    crown(first, "2")
    assert champion(first) == Champion(version="2", checkpoint=second.candidate)


def test_a_registry_that_is_not_there_is_not_made(case: Case, tmp_path) -> None:
    database = tmp_path / "nowhere" / "mlflow.db"
    assert champion(case, tracking_uri=f"sqlite:///{database}") is None
    assert not database.parent.exists()


@pytest.mark.parametrize("what", ["base", "store", "tags"])
def test_one_that_cannot_be_measured_says_why(case: Case, tmp_path, what: str) -> None:
    case.register()
    crown(case, "1")
    changes = {"base": {"base_sha256": "e" * 64}, "store": {"store": LocalStore(tmp_path / "s")}}
    if what == "tags":
        with case.client() as client:
            client.delete_model_version_tag(NAME, "1", "layerwright.plan_sha256")
    found = champion(case, **changes.get(what, {}))
    assert (found.version, found.checkpoint) == ("1", None)
    words = {
        "base": "base is another one",
        "store": "the store does not have",
        "tags": "plan_sha256",
    }
    assert words[what] in found.reason
