"""Covered mass by span against the attention matrix itself."""

import pytest
import torch
from tiny import LAYER_SPECS, LAYERS, tiny_hybrid, tiny_llama, tiny_tokens

from layerwright.kernels.covered_mass import covered_mass
from layerwright.tasks.errors import InputError
from layerwright.tasks.profile.base import SharedPass
from layerwright.tasks.profile.profilers.covered_span import CoveredSpan


@torch.inference_mode()
@pytest.mark.parametrize(("sinks", "last"), [(2, 7), (0, 1), (4, 44)])
def test_equals_the_dense_attention_matrix(sinks: int, last: int) -> None:
    rows, spans = tiny_tokens(3, 45), (1, 6, 30)
    base = tiny_llama()
    base.set_attn_implementation("eager")
    attentions = base(rows, output_attentions=True).attentions
    profiler = CoveredSpan(spans=spans, sinks=sinks, last_queries=last)
    (found,) = SharedPass([profiler], tiny_hybrid(LAYER_SPECS["full"]), rows).run()
    assert len(found.scores) == LAYERS
    for scores, attention in zip(found.scores, attentions, strict=True):
        for span in spans:
            mass_H = (
                sum(
                    attention[:, :, q, [k for k in range(q + 1) if k < sinks or q - k < span]].sum(
                        -1
                    )
                    for q in range(45 - last, 45)
                ).mean(0)
                / last
            )
            names = [f"covered_mass_{span}{part}" for part in ("", ".head_0", ".head_1")]
            expected = [mass_H.mean(), mass_H[:3].mean(), mass_H[3:].mean()]
            for name, value in zip(names, expected, strict=True):
                assert scores[name] == pytest.approx(value.item(), abs=1e-6)
        assert len(scores) == 3 * len(spans)


def test_agrees_with_the_lazy_ratio_and_grows_with_the_span() -> None:
    numbers = torch.Generator().manual_seed(0)
    q = torch.randn(2, 6, 5, 8, generator=numbers) * 3
    k = torch.randn(2, 2, 40, 8, generator=numbers)
    spans = (1, 7, 20, 40)
    masses = covered_mass(q, k, spans, 2)
    assert (masses.diff(dim=0) >= -1e-6).all()
    for mass, span in zip(masses, spans, strict=True):
        torch.testing.assert_close(mass, covered_mass(q, k, (span,), 2)[0])


def test_rows_within_the_widest_span_are_refused() -> None:
    with pytest.raises(InputError, match="tokens are too short"):
        SharedPass([CoveredSpan()], tiny_hybrid(LAYER_SPECS["full"]), tiny_tokens(2, 128))
