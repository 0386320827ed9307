"""Figures from items: the value, its interval, and what is kept of each item."""

import numpy as np
import pytest
from scipy.stats import binomtest

from layerwright.tasks.contracts.items import ItemResult, read_items, write_items
from layerwright.tasks.evaluate.base import BLOCK_TOKENS, Item, scored, token_blocks

SAID = {"unit": "share", "higher_is_better": True, "seed": 0}


def nats(rows: int, tokens: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).exponential(3.0, (rows, tokens))


def test_the_value_is_that_of_all_tokens() -> None:
    values = nats(3, 300)
    figure = scored("kl_mean.x", "candidate", token_blocks(values), **SAID)
    found = figure.measurement
    assert found.value == pytest.approx(values.mean())
    assert found.low < found.value < found.high
    assert (found.count, found.aggregate) == (900, "mean")
    assert len(figure.items) == 9
    assert {item.metric for item in figure.items} == {"kl_mean.x"}


def test_exp_of_the_mean_and_of_its_interval() -> None:
    plain = scored("a", "base", token_blocks(nats(8, 1023)), **SAID).measurement
    grown = scored("a", "base", token_blocks(nats(8, 1023)), **SAID, aggregate="exp_mean")
    found = grown.measurement
    assert [found.value, found.low, found.high] == pytest.approx(
        np.exp([plain.value, plain.low, plain.high])
    )


def test_tokens_of_a_block_count_as_one_observation() -> None:
    rng = np.random.default_rng(0)
    alike = np.repeat(rng.exponential(3.0, (64, 1)), BLOCK_TOKENS, axis=1)
    apart = rng.permutation(alike.ravel()).reshape(alike.shape)
    found = [scored("a", "base", token_blocks(v), **SAID).measurement for v in (alike, apart)]
    assert found[0].high - found[0].low > 5 * (found[1].high - found[1].low)


def test_blocks_lie_in_buckets_of_positions_that_double() -> None:
    blocks = token_blocks(nats(2, 700))
    assert [b.slice for b in blocks[:6]] == [
        "positions 0-127", "positions 128-255", "positions 256-511", "positions 256-511",
        "positions 512-1023", "positions 512-1023",
    ]  # fmt: skip
    assert (blocks[5].id, blocks[5].weight) == ("row 0, 640-699", 60)
    assert len({block.id for block in blocks}) == 12


def test_right_or_wrong_has_wilsons_interval() -> None:
    items = [Item(f"{i}", i < 11) for i in range(12)]
    figure = scored("recall.x", "base", items, **SAID)
    expected = binomtest(11, 12).proportion_ci(method="wilson")
    found = figure.measurement
    assert (found.value, found.low, found.high) == (11 / 12, expected.low, expected.high)
    assert [(item.correct, item.value) for item in figure.items[-2:]] == [(True, 1), (False, 0)]


def test_one_item_that_is_no_number_leaves_no_value() -> None:
    items = [Item("0", True), Item("1", float("nan"))]
    figure = scored("recall.x", "base", items, **SAID, not_finite="because")
    assert (figure.measurement.value, figure.measurement.detail) == (None, "because")
    assert [item.value for item in figure.items] == [1, None]
    values = nats(1, 300)
    values[0, 200] = np.nan
    figure = scored("kl_mean.x", "base", token_blocks(values), **SAID)
    assert figure.measurement.value is None
    assert [item.value is None for item in figure.items] == [False, True, False]


def test_no_interval_from_one_block() -> None:
    found = scored("a", "base", token_blocks(np.ones((1, BLOCK_TOKENS))), **SAID).measurement
    assert (found.value, found.low, found.high) == (1, None, None)


def test_items_come_back_from_their_file(tmp_path) -> None:
    items = (
        ItemResult(metric="a.b", arm="base", item="1", correct=False, slice="early"),
        ItemResult(metric="a.b", arm="candidate", item="1", value=0.1 + 0.2, weight=3.5),
        ItemResult(metric="a.b", arm="candidate", item="ü", value=None),
    )
    write_items(tmp_path, items)
    assert read_items(tmp_path) == items
    assert len((tmp_path / "items.jsonl").read_text().splitlines()) == 3
