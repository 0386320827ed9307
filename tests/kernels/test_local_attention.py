"""Local attention against its fp64 definition, and the definition against plain sums."""

import math
from itertools import product

import pytest
import torch
from facts import says
from pairs import pairwise
from tolerance import KERNEL, relative_rms

from layerwright.kernels.local_attention import BlockMeans, SoftSpan, add_to_blocks, local_attention
from layerwright.kernels.local_attention.blockwise import local_attention_blockwise
from layerwright.kernels.local_attention.reference import local_attention_reference
from layerwright.kernels.streaming_attention.reference import streaming_attention_reference

BATCH = 3
LIMIT = KERNEL[torch.float64]
# (query and key heads), head size, sinks, span, block
CASES = [
    ((6, 2), 5, 4, 16, 8),
    ((3, 3), 8, 0, 1, 1),
    ((4, 1), 13, 7, 20, 3),
    ((6, 2), 8, 2, 1000, 16),
    ((4, 2), 5, 40, 5, 16),
]


def place(length: int, layout: str) -> torch.Tensor:
    """Positions (R, length) of a batch without padding, or padded on one side."""
    row = torch.arange(length)
    if layout == "uniform":
        return row[None]
    rows = []
    for pad in (0, length // 3, length - 1):
        real, padding = torch.arange(length - pad), torch.full((pad,), -1)
        rows.append(torch.cat([padding, real] if layout == "left" else [real, padding]))
    return torch.stack(rows)


def draw(length: int, heads: tuple[int, int], size: int, dtype=torch.float64):
    generator = torch.Generator().manual_seed(length)
    return [
        torch.randn(BATCH, h, length, size, generator=generator, dtype=torch.float64)
        .to(dtype)
        .requires_grad_()
        for h in (heads[0], heads[1], heads[1])
    ]


def means_of(k, v, positions, sinks: int, size: int) -> BlockMeans:
    """Means of the blocks of all keys, by the operator's own sums."""
    blocks = -(-k.shape[2] // size)
    ones = torch.ones(len(positions), 1, positions.shape[1], 1)
    counts, keys, values = (
        add_to_blocks(None, x, positions, sinks, size, blocks) for x in (ones, k, v)
    )
    few = counts.clamp_min(1)
    return BlockMeans(keys / few, values / few, counts[:, 0, :, 0], size)


def by_the_sum(q, k, v, positions, sinks, span, size) -> torch.Tensor:
    """One query at a time: its exact keys, and the blocks before them, each written out."""
    out = torch.zeros_like(q)
    groups = q.shape[1] // k.shape[1]
    for b in range(BATCH):
        slot = {int(p): n for n, p in enumerate(positions[b % len(positions)]) if p >= 0}
        for i in slot:
            edge = max(i - span + 1, 0) // size * size
            exact = [j for j in range(i + 1) if j >= edge or j < sinks]
            far = [[j for j in range(s, s + size) if j >= sinks] for s in range(0, edge, size)]
            for h in range(q.shape[1]):
                keys, values = k[b, h // groups], v[b, h // groups]
                query = q[b, h, slot[i]] / math.sqrt(q.shape[-1])
                weights, parts = [], []
                for block in [[j] for j in exact] + [block for block in far if block]:
                    slots = [slot[j] for j in block]
                    weights.append(len(block) * (query @ keys[slots].mean(0)).exp())
                    parts.append(values[slots].mean(0))
                shares = torch.stack(weights)[:, None]
                out[b, h, slot[i]] = (shares * torch.stack(parts)).sum(0) / shares.sum()
    return out


@pytest.mark.parametrize("layout", ["uniform", "left"])
@pytest.mark.parametrize(("sinks", "span", "size"), [(0, 1, 4), (2, 5, 4), (6, 3, 4), (1, 7, 1)])
def test_the_definition_is_its_formula(sinks, span, size, layout):
    q, k, v = (x.detach() for x in draw(19, (4, 2), 5))
    positions = place(19, layout)
    means = means_of(k, v, positions, sinks, size)
    found = local_attention_reference(q, k, v, positions, positions, sinks, span, means)
    expected = by_the_sum(q, k, v, positions, sinks, span, size)
    assert relative_rms(found, expected) <= LIMIT


@pytest.mark.parametrize(
    ("heads", "size", "sinks", "span", "block", "parts", "length", "layout"),
    pairwise(
        CASES,
        ["means", "soft", "both", "neither"],
        list(product([1, 63, 150], ["uniform", "left", "right"])),
    ),
)
def test_output_lses_and_gradients_match_the_reference(
    heads, size, sinks, span, block, parts, length, layout
):
    q, k, v = draw(length, heads, size)
    positions = place(length, layout)
    lengths = torch.linspace(0, span, heads[1], dtype=torch.float64).requires_grad_()
    inputs = [q, k, v] + ([lengths] if parts in ("soft", "both") else [])
    weights = [
        torch.randn(shape, dtype=torch.float64) for shape in (q.shape, q.shape[:3], q.shape[:3])
    ]

    def results(attention, **options):
        means = means_of(k, v, positions, sinks, block) if parts in ("means", "both") else None
        soft = SoftSpan(lengths, 7) if parts in ("soft", "both") else None
        args = q, k, v, positions, positions, sinks, span, means, soft
        found = attention(*args, return_lse=True, **options)
        seen = [x.masked_fill(x.isneginf(), 0) for x in found]
        loss = sum((x * weight).sum() for x, weight in zip(seen, weights, strict=True))
        return found, seen, torch.autograd.grad(loss, inputs)

    expected, finite, gradients = results(local_attention_reference)
    found, own_finite, own_gradients = results(local_attention_blockwise, together=48)
    for actual, wanted in zip(found, expected, strict=True):
        assert actual.isneginf().equal(wanted.isneginf())
    for actual, wanted in zip(own_finite, finite, strict=True):
        assert relative_rms(actual, wanted) <= LIMIT
    for gradient, wanted in zip(own_gradients, gradients, strict=True):
        assert wanted.isfinite().all()
        assert relative_rms(gradient, wanted) <= LIMIT


@pytest.mark.parametrize("layout", ["uniform", "right"])
def test_without_means_and_ramp_it_is_streaming_attention(layout):
    q, k, v = draw(63, (6, 2), 8)
    args = q, k, v, place(63, layout), place(63, layout), 3, 11
    found, expected = local_attention_reference(*args), streaming_attention_reference(*args)
    assert relative_rms(found, expected) <= LIMIT


def test_blocks_of_one_token_are_full_attention():
    """A block's mean is then the key itself: nothing is lost, whatever the span."""
    q, k, v = draw(63, (6, 2), 8)
    positions = place(63, "left")
    means = means_of(k, v, positions, 2, 1)
    found = local_attention(q, k, v, positions, positions, 2, 5, means)
    full = streaming_attention_reference(q, k, v, positions, positions, 0, 1000)
    assert relative_rms(found, full) <= LIMIT


def test_far_mass_is_never_overestimated():
    """Jensen: log n + mean score <= log-sum-exp of the scores, so covered mass errs upwards."""
    q, k, v = draw(150, (6, 2), 8)
    positions = place(150, "uniform")
    means = means_of(k, v, positions, 2, 8)
    args = q, k, v, positions, positions, 2, 16, means
    _, lse, lse_far = local_attention(*args, return_lse=True)
    _, lse_all = streaming_attention_reference(*args[:5], 0, 1000, return_lse=True)
    true_share, estimate = (lse - lse_all).exp(), (lse - lse_far).sigmoid()
    assert (estimate >= true_share - 1e-12).all()
    assert (estimate > true_share + 1e-3).any()


def test_a_soft_span_fades_and_ends():
    """At equal scores the weights themselves show: 1 up to z, then a slope, then nothing."""
    k = torch.zeros(1, 1, 20, 1, dtype=torch.float64)
    v = torch.eye(20, dtype=torch.float64)[None, None]
    k = k.expand(-1, -1, -1, 20)
    positions = torch.arange(20)[None]
    soft = SoftSpan(torch.tensor([4.0], dtype=torch.float64), 4)
    out = local_attention(k, k, v, positions, positions, 1, 12, soft=soft)[0, 0, 19]
    expected = torch.tensor([*[1.0] * 5, 0.75, 0.5, 0.25], dtype=torch.float64)
    assert out[0] == out[19]  # the sink has the weight of the nearest
    torch.testing.assert_close(out.flip(0)[:8] / out[19], expected)
    assert (out[1:12] == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", ["uniform", "left"])
def test_lower_precision_stays_near_fp64(dtype, layout):
    q, k, v = draw(150, (6, 2), 16, dtype)
    positions = place(150, layout)
    wide = [x.double() for x in (q, k, v)]
    soft = SoftSpan(torch.tensor([3.0, 20.0]), 9)
    expected = local_attention_reference(
        *wide, positions, positions, 4, 30, means_of(*wide[1:], positions, 4, 8), soft
    )
    means = means_of(k, v, positions, 4, 8)
    assert means.keys.dtype == torch.float32
    actual = local_attention(q, k, v, positions, positions, 4, 30, means, soft)
    assert actual.dtype == dtype
    assert relative_rms(actual, expected) <= KERNEL[dtype]


@pytest.mark.parametrize("layout", ["left", "right"])
def test_padding_is_never_read(layout):
    positions = place(150, layout)
    clean = draw(150, (6, 2), 8)
    padding = (positions < 0)[:, None, :, None]
    poisoned = [x.detach().masked_fill(padding, torch.nan).requires_grad_() for x in clean]
    results = []
    for q, k, v in (clean, poisoned):
        means = means_of(k, v, positions, 2, 8)
        results.append(local_attention(q, k, v, positions, positions, 2, 9, means))
    torch.testing.assert_close(results[1], results[0])
    assert (results[1].masked_select(padding.expand_as(results[1])) == 0).all()
    for gradient in torch.autograd.grad(results[1].sum(), poisoned):
        assert gradient.isfinite().all()


@pytest.mark.parametrize("layout", ["uniform", "left"])
def test_sums_grow_as_if_taken_at_once(layout):
    _, k, _ = draw(63, (6, 2), 8)
    positions = place(63, layout)
    whole = add_to_blocks(None, k, positions, 3, 8, 8)
    sums = None
    for start, stop in ((0, 1), (1, 20), (20, 63)):
        where = positions[:, start:stop]
        sums = add_to_blocks(sums, k[:, :, start:stop], where, 3, 8, -(-stop // 8))
    torch.testing.assert_close(sums, whole)


def test_memory_stays_linear():
    """At T = 4096 no T × T tensor (16 MiB even as booleans) is made; T × T / block is 512 KiB."""
    length = 4096
    q, k, v = (torch.randn(1, 1, length, 8) for _ in range(3))
    positions = torch.arange(length)[None]
    means = means_of(k, v, positions, 4, 128)
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        local_attention(q, k, v, positions, positions, 4, 60, means)
    assert max(abs(event.cpu_memory_usage) for event in profile.events()) < 4 * 2**20


def test_implementation_can_be_chosen(monkeypatch):
    q, k, v = draw(20, (3, 3), 8)
    positions = place(20, "uniform")
    args = q, k, v, positions, positions, 1, 4, means_of(k, v, positions, 1, 4)
    blockwise = local_attention(*args)
    monkeypatch.setenv("LAYERWRIGHT_KERNELS", "reference")
    assert relative_rms(blockwise, local_attention(*args)) <= LIMIT
    monkeypatch.setenv("LAYERWRIGHT_KERNELS", "fastest")
    with pytest.raises(ValueError, match="'fastest'"):
        local_attention(*args)


def test_impossible_arguments_are_refused():
    q, k, v = draw(4, (6, 2), 8)
    positions = place(4, "uniform")
    means = means_of(k, v, positions, 0, 2)
    call = (q, k, v, positions, positions)
    with pytest.raises(ValueError, match=says("sinks", "0", "span", "1")):
        local_attention(*call, 0, 0)
    with pytest.raises(ValueError, match="at least 1 position"):
        local_attention(*call, 0, 1, means._replace(size=0))
    with pytest.raises(ValueError, match="at least 1 token"):
        local_attention(*call, 0, 1, soft=SoftSpan(torch.ones(2), 0))
    with pytest.raises(ValueError, match=says("6 query heads", "4")):
        local_attention(q, k.repeat(1, 2, 1, 1), v.repeat(1, 2, 1, 1), *call[3:], 0, 1)
