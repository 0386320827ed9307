"""The plan of what stays: within the bound, the least to load."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerwright.tasks.errors import InputError
from layerwright.tasks.offload.generation import size_in_bytes
from layerwright.tasks.offload.residency import megabytes, plan_residency

SIZES = st.lists(st.sampled_from([0, 3, 10, 64]), min_size=1, max_size=12)


@pytest.mark.parametrize(("layers", "streamed", "nbytes"), [(1, 8, 15), (2, 7, 25), (7, 2, 75)])
def test_a_bound_in_layers_is_used_up(layers: int, streamed: int, nbytes: int) -> None:
    residency = plan_residency(5, [10] * 8, resident_layers=layers)
    assert (len(residency.streamed), residency.nbytes) == (streamed, nbytes)
    assert plan_residency(5, [10] * 8, resident_bytes=nbytes) == residency
    assert plan_residency(5, [10] * 8).streamed == ()


def test_small_layers_stay_first() -> None:
    sizes = [64, 64, 3, 3, 64, 64, 3, 64]
    residency = plan_residency(0, sizes, resident_bytes=3 * 3 + 64 + 64)
    assert {sizes[layer] for layer in residency.streamed} == {64}
    assert len(residency.streamed) == 4


@given(SIZES, st.integers(0, 50), st.integers(0, 900))
def test_a_bound_in_bytes_holds(sizes: list[int], fixed: int, bound: int) -> None:
    whole = fixed + sum(sizes)
    try:
        residency = plan_residency(fixed, sizes, resident_bytes=bound)
    except InputError as error:
        least = int(re.search(r"at least (\d+) bytes", str(error)).group(1))
        assert bound < least <= whole
        assert plan_residency(fixed, sizes, resident_bytes=least).nbytes == least
        return
    streamed = residency.streamed
    staying = sum(size for layer, size in enumerate(sizes) if layer not in streamed)
    assert residency.nbytes == fixed + staying + residency.slot_bytes
    assert residency.nbytes <= bound
    assert (residency.nbytes < whole) == bool(streamed)
    assert bool(streamed) == (bound < whole)
    assert residency.slot_bytes == max((sizes[layer] for layer in streamed), default=0)
    assert all(sizes[layer] for layer in streamed)


@given(SIZES, st.integers(1, 14))
def test_a_bound_in_layers_holds(sizes: list[int], bound: int) -> None:
    residency = plan_residency(7, sizes, resident_layers=bound)
    held = sum(size > 0 for size in sizes) - len(residency.streamed) + bool(residency.streamed)
    assert held <= max(bound, 1)


def test_the_least_that_is_named_is_enough() -> None:
    sizes = [1_234_567] * 4
    with pytest.raises(InputError) as caught:
        plan_residency(7_654_321, sizes, resident_bytes=10)
    named = re.search(r"\((.*MB)\)", str(caught.value)).group(1)
    bound = size_in_bytes(named)
    assert plan_residency(7_654_321, sizes, resident_bytes=bound).streamed == (0, 1, 2, 3)
    assert megabytes(100_000) == "0.1MB"
    assert megabytes(100_001) == "0.2MB"
