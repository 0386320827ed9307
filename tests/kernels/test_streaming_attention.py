"""Streaming attention against its fp64 definition."""

import itertools

import pytest
import torch
from facts import says
from tolerance import KERNEL, relative_rms

from layerwright.kernels.streaming_attention import streaming_attention
from layerwright.kernels.streaming_attention.blockwise import streaming_attention_blockwise
from layerwright.kernels.streaming_attention.reference import (
    streaming_attention_reference,
    visible_keys,
)

# (query and key heads), head size, (sinks, window)
CASES = [
    ((6, 2), 5, (4, 16)),
    ((3, 3), 8, (0, 1)),
    ((4, 1), 13, (0, 20)),
    ((6, 2), 8, (4, 1000)),
    ((3, 3), 5, (300, 5)),
]
BATCH = 3


def place(length: int, layout: str) -> torch.Tensor:
    """Positions (R, length) of a batch laid out in one of four ways."""
    row = torch.arange(length)
    if layout == "uniform":
        return row[None]
    rows = []
    for pad in (0, length // 3, length - 1):
        real = torch.arange(length - pad)
        padding = torch.full((pad,), -1)
        half = len(real) // 2
        rows.append(
            {
                "left": [padding, real],
                "right": [real, padding],
                "middle": [real[:half], padding, real[half:]],
            }[layout]
        )
    return torch.stack([torch.cat(parts) for parts in rows])


def draw(length: int, heads: tuple[int, int], size: int, dtype=torch.float64):
    generator = torch.Generator().manual_seed(length)
    return [
        torch.randn(BATCH, h, length, size, generator=generator, dtype=torch.float64)
        .to(dtype)
        .requires_grad_()
        for h in (heads[0], heads[1], heads[1])
    ]


def test_visible_keys_is_the_definition():
    positions = torch.tensor([[-1, 0, 1, 2, 3, 4, 5]])
    visible = visible_keys(positions, positions, sinks=1, window=2)[0]
    for i, j in itertools.product(range(7), range(7)):
        q, k = i - 1, j - 1
        assert visible[i, j] == (0 <= k <= q and (q - k < 2 or k < 1))


@pytest.mark.parametrize("layout", ["uniform", "left", "right", "middle"])
@pytest.mark.parametrize("length", [1, 63, 64, 257])
@pytest.mark.parametrize(("heads", "size", "span"), CASES)
def test_output_lse_and_gradients_match_the_reference(heads, size, span, length, layout):
    q, k, v = draw(length, heads, size)
    positions = place(length, layout)
    args = q, k, v, positions, positions, *span
    expected, expected_lse = streaming_attention_reference(*args, return_lse=True)
    weight = torch.randn_like(expected)
    gradients = torch.autograd.grad((expected * weight).sum(), (q, k, v))
    with_lse, lse = streaming_attention_blockwise(*args, return_lse=True, block=48)
    torch.testing.assert_close(lse, expected_lse)
    for actual in (with_lse, streaming_attention_blockwise(*args, block=48)):
        assert relative_rms(actual, expected) <= KERNEL[torch.float64]
        found = torch.autograd.grad((actual * weight).sum(), (q, k, v))
        for gradient, reference in zip(found, gradients, strict=True):
            assert relative_rms(gradient, reference) <= KERNEL[torch.float64]


def sink_logits(heads: int) -> torch.Tensor:
    """A logit per head, from far below the scores to far above them."""
    return torch.linspace(-40, 9, heads, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("layout", ["uniform", "left"])
def test_a_sink_logit_is_a_key_with_a_zero_value(layout):
    q, k, v = draw(70, (6, 2), 8)
    logits, positions = sink_logits(6), place(70, layout)
    out, lse = streaming_attention_reference(
        q, k, v, positions, positions, 0, 9, return_lse=True, sink_logits_H=logits
    )
    plain, plain_lse = streaming_attention_reference(
        q, k, v, positions, positions, 0, 9, return_lse=True
    )
    share = (plain_lse - logits[:, None]).sigmoid()  # 0 where nothing is visible
    torch.testing.assert_close(out, plain * share[..., None])
    seen = ~plain_lse.isneginf()
    assert seen.equal(~lse.isneginf())
    torch.testing.assert_close(lse[seen], plain_lse.logaddexp(logits[:, None])[seen])


@pytest.mark.parametrize("layout", ["uniform", "left", "right", "middle"])
@pytest.mark.parametrize("length", [1, 64, 257])
@pytest.mark.parametrize(("heads", "size", "span"), CASES)
def test_sink_logits_match_the_reference(heads, size, span, length, layout):
    inputs = [*draw(length, heads, size), sink_logits(heads[0])]
    positions = place(length, layout)
    args = *inputs[:3], positions, positions, *span
    expected, expected_lse = streaming_attention_reference(
        *args, return_lse=True, sink_logits_H=inputs[3]
    )
    weight, lse_weight = torch.randn_like(expected), torch.randn_like(expected_lse)
    real = (~expected_lse.isneginf()).nonzero(as_tuple=True)
    total = (expected * weight).sum() + (expected_lse * lse_weight)[real].sum()
    gradients = torch.autograd.grad(total, inputs)
    out, lse = streaming_attention_blockwise(
        *args, return_lse=True, sink_logits_H=inputs[3], block=48
    )
    torch.testing.assert_close(lse, expected_lse)
    assert relative_rms(out, expected) <= KERNEL[torch.float64]
    found = torch.autograd.grad((out * weight).sum() + (lse * lse_weight)[real].sum(), inputs)
    for gradient, reference in zip(found, gradients, strict=True):
        assert relative_rms(gradient, reference) <= KERNEL[torch.float64]
    alone = streaming_attention_blockwise(*args, sink_logits_H=inputs[3])
    assert relative_rms(alone, expected) <= KERNEL[torch.float64]


def test_gradient_of_the_lse():
    q, k, _ = draw(64, (6, 2), 8)
    positions = place(64, "left")
    found, expected = (
        torch.autograd.grad(
            attention(q, k, k, positions, positions, 2, 9, return_lse=True)[1]
            .masked_fill((positions < 0)[:, None], 0)
            .sum(),
            (q, k),
        )
        for attention in (streaming_attention_blockwise, streaming_attention_reference)
    )
    for gradient, reference in zip(found, expected, strict=True):
        assert relative_rms(gradient, reference) <= KERNEL[torch.float64]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", ["uniform", "left"])
def test_lower_precision_stays_near_fp64(dtype, layout):
    q, k, v = draw(257, (6, 2), 16, dtype)
    positions = place(257, layout)
    expected = streaming_attention_reference(
        q.double(), k.double(), v.double(), positions, positions, 4, 30
    )
    actual = streaming_attention(q, k, v, positions, positions, 4, 30)
    assert actual.dtype == dtype
    assert relative_rms(actual, expected) <= KERNEL[dtype]


@pytest.mark.parametrize("layout", ["uniform", "left", "right", "middle"])
def test_split_queries_equal_the_whole(layout):
    """A later chunk given the kept keys and its own gives what one pass gives."""
    length, cut, sinks, window = 150, 90, 4, 20
    q, k, v = draw(length, (6, 2), 8)
    positions = place(length, layout)
    whole = streaming_attention(q, k, v, positions, positions, sinks, window)
    newest = positions[:, :cut].amax(1, keepdim=True)
    kept = (positions[:, :cut] < sinks) | (positions[:, :cut] > newest + 1 - window)
    # Dropped keys become padding slots here; removing them is the cache's work.
    k_positions = torch.where(kept, positions[:, :cut], -1)
    k_positions = torch.cat([k_positions, positions[:, cut:]], dim=1)
    part = streaming_attention(q[:, :, cut:], k, v, positions[:, cut:], k_positions, sinks, window)
    assert relative_rms(part, whole[:, :, cut:]) <= KERNEL[torch.float64]


@pytest.mark.parametrize("layout", ["left", "right", "middle"])
@pytest.mark.parametrize("length", [40, 257])
def test_padding_is_never_read(length, layout):
    positions = place(length, layout)
    clean = draw(length, (6, 2), 8)
    padding = (positions < 0)[:, None, :, None]
    poisoned = [x.detach().masked_fill(padding, torch.nan).requires_grad_() for x in clean]
    expected = streaming_attention(*clean, positions, positions, 2, 9)
    actual = streaming_attention(*poisoned, positions, positions, 2, 9)
    torch.testing.assert_close(actual, expected)
    assert (actual.masked_select(padding.expand_as(actual)) == 0).all()
    for gradient in torch.autograd.grad(actual.sum(), poisoned):
        assert gradient.isfinite().all()


def test_queries_elsewhere_than_keys():
    """Scattered, unsorted queries and keys: ranges must hold whatever the order."""
    generator = torch.Generator().manual_seed(1)
    q = torch.randn(2, 4, 50, 8, generator=generator, dtype=torch.float64)
    k, v = torch.randn(2, 2, 2, 400, 8, generator=generator, dtype=torch.float64)
    q_positions = torch.randint(-1, 600, (2, 50), generator=generator)
    k_positions = torch.stack([torch.randperm(600, generator=generator)[:400] for _ in range(2)])
    k_positions[:, ::7] = -1
    for rows in (slice(None), slice(1)):
        args = q, k, v, q_positions[rows], k_positions[rows], 5, 40
        expected = streaming_attention_reference(*args)
        for block in (16, 128):
            actual = streaming_attention_blockwise(*args, block=block)
            assert relative_rms(actual, expected) <= KERNEL[torch.float64]


def test_empty_keys_give_zero():
    q, k = torch.randn(1, 2, 3, 4), torch.randn(1, 2, 0, 4)
    out, lse = streaming_attention(
        q, k, k, torch.arange(3)[None], torch.empty(1, 0, dtype=torch.long), 1, 2, return_lse=True
    )
    assert (out == 0).all()
    assert lse.isneginf().all()


def test_memory_stays_linear():
    """At T = 4096 no T × T tensor (16 MiB even as booleans) is made."""
    length = 4096
    q, k, v = (torch.randn(1, 1, length, 8) for _ in range(3))
    positions = torch.arange(length)[None]
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        streaming_attention(q, k, v, positions, positions, 4, 60)
    largest = max(abs(event.cpu_memory_usage) for event in profile.events())
    assert largest < 4 * 2**20


def test_implementation_can_be_chosen(monkeypatch):
    q, k, v = draw(20, (3, 3), 8)
    positions = place(20, "uniform")
    blockwise = streaming_attention(q, k, v, positions, positions, 1, 4)
    monkeypatch.setenv("LAYERWRIGHT_KERNELS", "reference")
    reference = streaming_attention(q, k, v, positions, positions, 1, 4)
    assert relative_rms(blockwise, reference) <= KERNEL[torch.float64]
    monkeypatch.setenv("LAYERWRIGHT_KERNELS", "fastest")
    with pytest.raises(ValueError, match="'fastest'"):
        streaming_attention(q, k, v, positions, positions, 1, 4)


@pytest.mark.parametrize(("sinks", "window"), [(-1, 4), (0, 0)])
def test_bad_spans_are_refused(sinks, window):
    q, k, v = draw(4, (3, 3), 8)
    with pytest.raises(ValueError, match=says("sinks", "0", "window", "1")):
        streaming_attention(q, k, v, place(4, "uniform"), place(4, "uniform"), sinks, window)
