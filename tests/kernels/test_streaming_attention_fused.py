"""Streaming attention by Triton against its fp64 definition, outputs poisoned with NaN."""

import pytest
import torch
from tolerance import KERNEL, relative_rms

from layerwright.kernels.streaming_attention import streaming_attention
from layerwright.kernels.streaming_attention.reference import streaming_attention_reference

pytestmark = pytest.mark.usefixtures("fused")

# (query and key heads), head size, (sinks, window)
GROUPED, SINGLE = ((4, 2), 13, (4, 16)), ((3, 3), 8, (0, 1))
MANY, ALL = ((5, 1), 24, (2, 70)), ((2, 1), 5, (300, 5))
CASES = [
    *((1, "left", case) for case in (GROUPED, SINGLE, MANY, ALL)),
    *((63, "middle", case) for case in (GROUPED, MANY)),
    *((64, "uniform", case) for case in (SINGLE, ALL)),
    (257, "uniform", GROUPED),
    (257, "left", MANY),
    (257, "right", ALL),
]


def place(length: int, layout: str, device: str) -> torch.Tensor:
    """Positions (R, length): one row for all, or two of which the second is padded."""
    row = torch.arange(length)
    if layout == "uniform":
        return row[None].to(device)
    padding, real = row[: length // 3] * 0 - 1, row[: length - length // 3]
    half = len(real) // 2
    second = {
        "left": [padding, real],
        "right": [real, padding],
        "middle": [real[:half], padding, real[half:]],
    }[layout]
    return torch.stack([row, torch.cat(second)]).to(device)


def draw(length, heads, size, device, dtype=torch.float32):
    """q, k and v of two rows, that ask for gradients."""
    generator = torch.Generator().manual_seed(length)
    return [
        torch.randn(2, h, length, size, generator=generator).to(device, dtype).requires_grad_()
        for h in (heads[0], heads[1], heads[1])
    ]


def exact(*tensors):
    return [x.detach().double().requires_grad_() for x in tensors]


def seen(lse):
    return lse.masked_fill(lse.isneginf(), 0)


@pytest.mark.parametrize("with_sinks", [False, True])
@pytest.mark.parametrize(("length", "layout", "case"), CASES)
def test_output_lse_and_gradients_match_the_reference(length, layout, case, with_sinks, device):
    heads, size, span = case
    inputs, positions = draw(length, heads, size, device), place(length, layout, device)
    if with_sinks:
        inputs.append(torch.linspace(-40, 9, heads[0], device=device).requires_grad_())
    doubles = exact(*inputs)

    def both(attention, q, k, v, sink_logits_H=None):
        places = positions, positions, *span
        return attention(q, k, v, *places, return_lse=True, sink_logits_H=sink_logits_H)

    expected, expected_lse = both(streaming_attention_reference, *doubles)
    out, lse = both(streaming_attention, *inputs)
    limit = KERNEL[torch.float32]
    assert relative_rms(out, expected) <= limit
    assert lse.isneginf().equal(expected_lse.isneginf())
    assert relative_rms(seen(lse), seen(expected_lse)) <= limit
    weight, lse_weight = torch.randn_like(out), torch.randn_like(lse)
    found = torch.autograd.grad((out * weight).sum() + (seen(lse) * lse_weight).sum(), inputs)
    total = (expected * weight).sum() + (seen(expected_lse) * lse_weight).sum()
    names = ("q", "k", "v", "sink logits")[: len(inputs)]
    for name, x, y in zip(names, found, torch.autograd.grad(total, doubles), strict=True):
        assert relative_rms(x, y) <= limit, name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_near_fp64(dtype, device):
    inputs, positions = draw(100, (4, 2), 16, device, dtype), place(100, "left", device)
    doubles = exact(*inputs)
    expected = streaming_attention_reference(*doubles, positions, positions, 4, 30)
    out = streaming_attention(*inputs, positions, positions, 4, 30)
    assert out.dtype == dtype
    assert relative_rms(out, expected) <= KERNEL[dtype]
    found = torch.autograd.grad(out.sum(), inputs)
    for name, x, y in zip("qkv", found, torch.autograd.grad(expected.sum(), doubles), strict=True):
        assert x.dtype == dtype
        assert relative_rms(x, y) <= KERNEL[dtype], name


@pytest.mark.parametrize("cut", [90, 149])
def test_split_queries_equal_the_whole(cut, device):
    """Several later queries, or the last one, given the kept keys in a ring's order."""
    sinks, window, length = 4, 70, 150
    q, k, v = (x.detach() for x in draw(length, (4, 2), 8, device))
    positions = place(length, "left", device)
    whole = streaming_attention(q, k, v, positions, positions, sinks, window)
    newest = positions[:, :cut].amax(1, keepdim=True)
    kept = (positions[:, :cut] < sinks) | (positions[:, :cut] > newest + 1 - window)
    there = torch.cat([positions[:, :cut].masked_fill(~kept, -1), positions[:, cut:]], dim=1)
    turned = (x.roll(57, dims=2) for x in (k, v))
    part = streaming_attention(
        q[:, :, cut:], *turned, positions[:, cut:], there.roll(57, dims=1), sinks, window
    )
    assert relative_rms(part, whole[:, :, cut:]) <= KERNEL[torch.float32]


@pytest.mark.parametrize("logit", [None, -30.0, 2.0, 60.0])
@pytest.mark.parametrize("splits", [1, 3, 5])
def test_splits_of_the_keys_are_one_softmax(splits, logit, device):
    from layerwright.kernels.streaming_attention.triton_decode import attend_once

    _, k, v = (x.detach() for x in draw(150, (4, 2), 256, device))
    q, positions = k.new_ones(2, 4, 1, 256), place(150, "left", device)
    places = positions[:, -1:], positions, 2, 60
    logits = None if logit is None else logit * torch.linspace(0.5, 1, 4, device=device)
    out, lse = attend_once(q, k, v, *places, sink_logits_H=logits, splits=splits)
    expected, expected_lse = streaming_attention_reference(
        q, k, v, *places, return_lse=True, sink_logits_H=logits
    )
    assert relative_rms(out, expected) <= KERNEL[torch.float32]
    assert relative_rms(lse, expected_lse) <= KERNEL[torch.float32]


@pytest.mark.parametrize("length", [1, 40])
def test_padding_is_never_read(length, device):
    inputs, positions = draw(100, (4, 2), 8, device), place(100, "left", device)
    queries = slice(100 - length, 100) if length > 1 else slice(0, 1)
    padding = (positions < 0)[:, None, :, None]
    poisoned = [x.masked_fill(padding, torch.nan) for x in inputs]
    expected, found = (
        streaming_attention(q[:, :, queries], k, v, positions[:, queries], positions, 2, 9)
        for q, k, v in (inputs, poisoned)
    )
    assert found.equal(expected)
    for gradient in torch.autograd.grad(found.sum(), inputs):
        assert gradient.isfinite().all()


@pytest.mark.parametrize("queries", [1, 20])
def test_blocks_outside_the_mask_are_never_read(queries, device):
    """NaN between the blocks of the sinks and those of the window does not show."""
    q, k, v = (x.detach() for x in draw(400, (2, 1), 8, device))
    q, positions = q[:, :, -queries:], place(400, "uniform", device)
    places = positions[:, -queries:], positions, 2, 9
    expected = streaming_attention(q, k, v, *places)
    k[:, :, 128:256], v[:, :, 128:256] = torch.nan, torch.nan
    assert streaming_attention(q, k, v, *places).equal(expected)
    q, k = q.requires_grad_(), k.requires_grad_()
    streaming_attention(q, k, v, *places).sum().backward()
    assert q.grad.isfinite().all()
    assert (k.grad[:, :, 128:256] == 0).all()


def test_strided_inputs(device):
    heads, positions = (4, 2), place(70, "uniform", device)
    q, k, v = (x.detach() for x in draw(70, heads, 9, device))
    expected = streaming_attention(q, k, v, positions, positions, 4, 20)
    by_token = (x.transpose(1, 2).contiguous().transpose(1, 2) for x in (q, k))
    by_channel = v.mT.contiguous().mT
    found = streaming_attention(*by_token, by_channel, positions, positions, 4, 20)
    torch.testing.assert_close(found, expected)


def test_offsets_beyond_32_bits(device):
    """A second row of keys that lies more than 2**31 elements after the first."""
    step = 2**31 + 64
    q, k, v = (x.detach() for x in draw(20, (2, 1), 8, device, torch.bfloat16))
    storage = torch.UntypedStorage((step + 160) * 2, device=device)
    far = k.new_zeros(0).set_(storage, 0, k.shape, (step, 160, 8, 1)).copy_(k)
    positions = place(20, "uniform", device)
    expected = streaming_attention(q, k, v, positions, positions, 4, 8)
    assert streaming_attention(q, far, v, positions, positions, 4, 8).equal(expected)


def test_nothing_to_see_gives_zero(device):
    q, k = torch.randn(1, 2, 3, 4, device=device), torch.randn(1, 2, 0, 4, device=device)
    there = torch.arange(3, device=device)[None]
    out, lse = streaming_attention(q, k, k, there, there[:, :0], 1, 2, return_lse=True)
    assert (out == 0).all()
    assert lse.isneginf().all()


def test_compiles_whole(device):
    """torch.compile traces through the operator and its gradient without a break."""
    inputs, positions = draw(30, (4, 2), 8, device), place(30, "uniform", device)

    def loss(q, k, v):
        return streaming_attention(q * 2, k, v, positions, positions, 4, 8).square().sum()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    expected, found = (torch.autograd.grad(f(*inputs), inputs) for f in (loss, compiled))
    for x, y in zip(found, expected, strict=True):
        assert relative_rms(x, y) <= KERNEL[torch.float32]
