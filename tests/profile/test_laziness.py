"""The lazy ratio against the attention matrix itself."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import LAYER_SPECS, tiny_hybrid, tiny_llama, tiny_tokens

from layerwright.kernels.covered_mass import covered_mass
from layerwright.tasks.errors import InputError
from layerwright.tasks.profile.base import SharedPass
from layerwright.tasks.profile.profilers.laziness import Laziness


def dense_ratio(attention_BHTT: torch.Tensor, sinks: int, window: int, last: int) -> float:
    """Sum of the visible part of the softmaxed matrix, written out."""
    T = attention_BHTT.shape[-1]
    total = 0.0
    for q in range(T - last, T):
        visible = [k for k in range(q + 1) if k < sinks or q - k < window]
        total += attention_BHTT[:, :, q, visible].double().sum(-1).mean().item()
    return total / last


@torch.inference_mode()
@pytest.mark.parametrize(
    ("sinks", "window", "last"), [(2, 6, 7), (0, 5, 1), (4, 1, 20), (1, 30, 45)]
)
def test_equals_the_dense_attention_matrix(sinks: int, window: int, last: int) -> None:
    rows = tiny_tokens(3, 45)
    base = tiny_llama()
    base.set_attn_implementation("eager")
    attentions = base(rows, output_attentions=True).attentions
    profiler = Laziness(sinks=sinks, window=window, last_queries=last)
    (found,) = SharedPass([profiler], tiny_hybrid(LAYER_SPECS["full"]), rows).run()
    for layer, attention in enumerate(attentions):
        expected = dense_ratio(attention, sinks, window, last)
        assert found.scores[layer] == {"lazy_ratio": pytest.approx(expected, abs=1e-6)}


@settings(max_examples=40, deadline=None)
@given(
    tokens=st.integers(1, 40),
    queries=st.integers(1, 12),
    sinks=st.integers(0, 6),
    window=st.integers(1, 45),
    seed=st.integers(0, 1000),
)
def test_is_a_share_that_grows_with_what_is_seen(tokens, queries, sinks, window, seed) -> None:
    numbers = torch.Generator().manual_seed(seed)
    q = torch.randn(2, 6, min(queries, tokens), 8, generator=numbers) * 3
    k = torch.randn(2, 2, tokens, 8, generator=numbers)
    mass, more, wider = (
        covered_mass(q, k, (span,), first)[0]
        for span, first in ((window, sinks), (window, sinks + 1), (window + 1, sinks))
    )
    assert mass.shape == q.shape[:3]
    assert ((mass > 0) & (mass <= 1 + 1e-6)).all()
    assert (more >= mass - 1e-6).all()
    assert (wider >= mass - 1e-6).all()
    if window >= tokens:
        torch.testing.assert_close(mass, torch.ones_like(mass))


def test_long_rows_need_no_square_of_scores() -> None:
    # 200,000 keys squared would be 160 GB
    k = torch.randn(1, 1, 200_000, 4, generator=torch.Generator().manual_seed(0))
    mass = covered_mass(k[:, :, -2:] * 0, k, (996,), 4)[0]
    expected = torch.tensor([[[1000 / 199_999, 1000 / 200_000]]])
    torch.testing.assert_close(mass, expected, rtol=1e-4, atol=0)


def test_rows_within_sinks_and_window_are_refused() -> None:
    with pytest.raises(InputError, match="would be 1"):
        SharedPass([Laziness()], tiny_hybrid(LAYER_SPECS["full"]), tiny_tokens(2, 128))
