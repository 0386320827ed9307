"""What is timed: whole prefills of several rows, and tokens behind them, one by one."""

import pytest
import torch
from tiny import LAYER_SPECS, tiny_hybrid

from tasks.measure.conversion import unfitted_copy
from tasks.measure.speed import interleaved_speeds, prefill

FULL = LAYER_SPECS["full"]


@pytest.mark.parametrize("batch", [1, 3])
def test_every_row_is_read_and_written(batch: int) -> None:
    model, seen = tiny_hybrid(FULL), []

    def watch(module, arguments) -> None:
        seen.append(tuple(arguments[0].shape))

    model.register_forward_pre_hook(watch)
    found = interleaved_speeds({"a": model}, 20, decode_tokens=2, repeats=3, batch=batch)
    assert seen == [(batch, 20), (batch, 1), (batch, 1)] * 4, "one round is not counted"
    assert len(found["a"].prefill_seconds) == len(found["a"].decode_seconds_per_token) == 3
    assert min(*found["a"].prefill_seconds, *found["a"].decode_seconds_per_token) > 0


def test_a_prefill_gives_the_last_logits_and_the_cache() -> None:
    model = tiny_hybrid(FULL)
    cache, logits = prefill(model, 30, batch=2)
    with torch.inference_mode():
        expected = model(torch.arange(30).expand(2, 30)).logits[:, -1:]
    torch.testing.assert_close(logits, expected)
    assert cache.seen_tokens == 30


def test_an_unfitted_copy_has_the_layers_and_shares_the_weights() -> None:
    base = tiny_hybrid(FULL)
    before = [dict(spec) for spec in base.config.layer_specs]
    specs = [LAYER_SPECS["linear"], before[1], LAYER_SPECS["streaming"], LAYER_SPECS["removed"]]
    model = unfitted_copy(base, specs)
    assert [spec["mixer"]["kind"] for spec in model.config.layer_specs] == [
        "none", "full", "streaming", "none",
    ]  # fmt: skip
    assert base.config.layer_specs == before
    assert not model.model.layers[0].linear.weight.any()
    shared = {p.data_ptr() for p in base.parameters()}
    new = [name for name, p in model.named_parameters() if p.data_ptr() not in shared]
    assert new == ["model.layers.0.linear.weight", "model.layers.0.linear.bias"]
