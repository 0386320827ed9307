"""Entropy, distance and sink mass against the attention matrix itself."""

import math

import pytest
import torch
from tiny import LAYER_SPECS, LAYERS, tiny_hybrid, tiny_tokens
from tiny_families import tiny_base, tiny_family

from layerwright.tasks.errors import InputError
from layerwright.tasks.profile.base import SharedPass
from layerwright.tasks.profile.profilers.attention_span import AttentionSpan, attention_spread

HEADS = {"": slice(None), ".head_0": slice(0, 3), ".head_1": slice(3, 6)}


@torch.inference_mode()
@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize(("sinks", "last"), [(2, 7), (0, 1), (4, 41)])
def test_equals_the_dense_attention_matrix(family: str, sinks: int, last: int) -> None:
    T = 45
    rows = tiny_tokens(3, T)
    base = tiny_base(family)
    base.set_attn_implementation("eager")
    attentions = base(rows, output_attentions=True).attentions
    profiler = AttentionSpan(sinks=sinks, last_queries=last)
    (found,) = SharedPass([profiler], tiny_family(family), rows).run()
    assert len(found.scores) == LAYERS
    for scores, attention_BHTT in zip(found.scores, attentions, strict=True):
        assert len(scores) == 3 * len(HEADS)
        for part, heads in HEADS.items():
            entropy, distance, sink_mass = [], [], []
            for q in range(T - last, T):
                shares = attention_BHTT[:, heads, q, : q + 1].double()
                entropy.append(torch.special.entr(shares).sum(-1).mean().item())
                back = torch.arange(q, -1, -1, dtype=torch.double)[sinks:]
                beyond = shares[..., sinks:]
                distance.append(((beyond @ back) / beyond.sum(-1)).mean().item())
                sink_mass.append(shares[..., :sinks].sum(-1).mean().item())
            expected = {
                "attention_entropy": entropy,
                "attention_distance": distance,
                "sink_mass": sink_mass,
            }
            for name, values in expected.items():
                mean = sum(values) / last
                assert scores[name + part] == pytest.approx(mean, rel=1e-4, abs=1e-5), name + part


def test_attention_that_is_uniform_has_the_closed_form() -> None:
    k = torch.randn(1, 2, 50, 8, generator=torch.Generator().manual_seed(0))
    entropy, distance, sink_mass = attention_spread(torch.zeros(1, 6, 3, 8), k, 4)
    keys = torch.tensor([48.0, 49.0, 50.0]).expand(1, 6, 3)
    torch.testing.assert_close(entropy, keys.log())
    torch.testing.assert_close(distance, (keys - 5) / 2)  # 0 to q - 4, where q = keys - 1
    torch.testing.assert_close(sink_mass, 4 / keys)


def test_attention_on_one_key_has_no_entropy_and_that_keys_distance() -> None:
    k = torch.zeros(1, 1, 50, 8)
    k[:, :, 37, 0] = 1000.0
    q = torch.zeros(1, 1, 2, 8)
    q[..., 0] = 10.0
    entropy, distance, sink_mass = attention_spread(q, k, 4)
    torch.testing.assert_close(entropy, torch.zeros(1, 1, 2))
    torch.testing.assert_close(distance, torch.tensor([[[11.0, 12.0]]]))
    torch.testing.assert_close(sink_mass, torch.zeros(1, 1, 2))


def test_all_on_a_sink_still_leaves_the_distance_of_the_rest() -> None:
    k = torch.zeros(1, 1, 50, 8)
    k[:, :, 0, 0] = 1000.0  # outweighs the others by far more than fp32 can hold
    q = torch.full((1, 1, 1, 8), 10.0)
    entropy, distance, sink_mass = attention_spread(q, k, 1)
    torch.testing.assert_close(sink_mass, torch.ones(1, 1, 1))
    torch.testing.assert_close(distance, torch.full((1, 1, 1), 24.0))
    assert math.isfinite(entropy.item())


def test_long_rows_need_no_square_of_scores() -> None:
    # 200,000 keys squared would be 160 GB
    k = torch.randn(1, 1, 200_000, 4, generator=torch.Generator().manual_seed(0))
    entropy, distance, _ = attention_spread(k[:, :, -2:] * 0, k, 0)
    assert entropy[0, 0, 1].item() == pytest.approx(math.log(200_000), rel=1e-5)
    assert distance[0, 0, 1].item() == pytest.approx(199_999 / 2, rel=1e-4)


def test_rows_with_queries_among_the_sinks_are_refused() -> None:
    with pytest.raises(InputError, match="4 sinks"):
        SharedPass([AttentionSpan()], tiny_hybrid(LAYER_SPECS["full"]), tiny_tokens(2, 35))
