"""Who answers a request: sticky, monotone, in the shares, and the same in any language."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerwright.tasks.rollout.assignment import assign

SHARES = st.floats(min_value=0, max_value=1)


@given(st.text(), st.text(min_size=1), SHARES, SHARES)
def test_a_request_stays_with_the_challenger_as_the_share_grows(model, request_id, one, other):
    small, large = sorted((one, other))
    if assign(model, request_id, small) == "challenger":
        assert assign(model, request_id, large) == "challenger"


@given(st.text(), st.text(min_size=1), SHARES)
def test_it_is_a_function_of_its_arguments(model, request_id, share):
    assert assign(model, request_id, share) == assign(model, request_id, share)
    assert assign(model, request_id, 0.0) == "champion"
    assert assign(model, request_id, 1.0) == "challenger"


@given(st.text(st.characters(exclude_categories=["Cs"])), SHARES)
def test_it_is_the_hash_that_is_documented(request_id, share):
    first = hashlib.sha256(b"tiny\n" + request_id.encode("utf-8")).hexdigest()[:8]
    expected = "challenger" if int(first, 16) < share * 2**32 else "champion"
    assert assign("tiny", request_id, share) == expected


@pytest.mark.parametrize("share", [0.05, 0.25])
def test_the_shares_are_kept(share):
    ids = [f"user-{index}" for index in range(20_000)]
    mine = [assign("tiny", one, share) == "challenger" for one in ids]
    error = (share * (1 - share) / len(ids)) ** 0.5
    assert sum(mine) / len(ids) == pytest.approx(share, abs=5 * error)
    # another model's roll-out is another draw
    both = [assign("other", one, share) == "challenger" for one in ids]
    together = sum(a and b for a, b in zip(mine, both, strict=True)) / len(ids)
    assert together == pytest.approx(share**2, abs=5 * share * error)


@pytest.mark.parametrize(
    ("request_id", "point"),
    [("r1", 2873027476), ("user-7", 3914159710), ("Zoë", 3884965090)],
)
def test_vectors_for_a_proxy_in_another_language(request_id, point):
    """Those of docs/rollout.md, for the model "tiny"."""
    assert assign("tiny", request_id, point / 2**32) == "champion"
    assert assign("tiny", request_id, (point + 1) / 2**32) == "challenger"
