"""What is timed: whole prefills of several rows, and tokens behind them, one by one."""

import pytest
import torch
from tiny import LAYER_SPECS, tiny_hybrid

from layerwright.tasks.models.conversion import unfitted_copy
from layerwright.tasks.timing.speed import interleaved_speeds, prefill

FULL = LAYER_SPECS["full"]


@pytest.mark.parametrize("batch", [1, 3])
def test_every_row_is_read_and_written(batch: int) -> None:
    model, seen = tiny_hybrid(FULL), []

    def watch(module, arguments) -> None:
        seen.append(tuple(arguments[0].shape))

    model.register_forward_pre_hook(watch)
    found = interleaved_speeds({"a": model}, 20, decode_tokens=2, repeats=3, batch=batch)
    requests = [(batch, 20), (batch, 1), (batch, 1)] * 4
    assert seen == [(batch, 20), *requests], "a short pass, and one round that is not counted"
    speed = found["a"]
    for read, chosen, token, whole in zip(
        speed.prefill_seconds,
        speed.first_token_seconds,
        speed.decode_seconds_per_token,
        speed.request_seconds,
        strict=True,
    ):
        assert 0 < read <= chosen < whole
        assert whole == pytest.approx(chosen + 2 * token)
    assert len(speed.request_seconds) == 3


def test_memory_is_that_of_the_whole_request_and_the_same_each_time() -> None:
    model = tiny_hybrid(FULL)

    def peak(tokens: int, batch: int) -> int:
        speeds = interleaved_speeds({"a": model}, tokens, decode_tokens=1, repeats=1, batch=batch)
        return speeds["a"].peak_bytes

    assert peak(128, 2) == peak(128, 2)
    for tokens in (128, 512):
        assert peak(tokens, 2) > prefill(model, tokens, 2)[0].nbytes()
    assert peak(512, 1) > 2 * peak(128, 1)


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
