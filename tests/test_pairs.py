"""Every pair of values meets, in fewer cases than the product has."""

from itertools import product

from pairs import pairwise


def test_every_pair_meets_once_at_least() -> None:
    factors = ("abcde", "wxyz", (1, 2, 3), (7, 8, 9))
    cases = pairwise(*factors)
    for i, j in ((0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)):
        assert {(case[i], case[j]) for case in cases} == set(product(factors[i], factors[j]))
    assert 20 <= len(cases) <= 26 < 5 * 4 * 3 * 3
    assert len(set(cases)) == len(cases)
    assert pairwise(*factors) == cases


def test_a_combined_factor_stays_a_product() -> None:
    lengths = list(product((1, 63), ("left", "right")))
    cases = pairwise(lengths, "ab")
    assert set(cases) == {(*length, name) for length in lengths for name in "ab"}
