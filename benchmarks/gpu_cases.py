"""The operators' benchmark cases: our kernels, PyTorch's, and flash-linear-attention's.

Shapes of one layer of an 8 B model: 32 query heads, 8 key/value heads, d = 128, bf16; B batch, T
tokens. `quick` gives the shortest shapes alone, `device` lets the arms run without a GPU.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.gpu_timing import Arm, Case
from benchmarks.kernel_floors import (
    LIGER_WINDOW,
    MODELS,
    QUERIES,
    SINGLE,
    SINKS,
    SPANS,
    WINDOW,
    Row,
    decode_rows,
    mass_row,
    prefill_rows,
    recurrence_rows,
)
from layerwright.kernels.covered_mass.reference import covered_mass_reference
from layerwright.kernels.gated_recurrence.chunked import gated_recurrence_chunked
from layerwright.kernels.liger_decode import LigerMix, NewToken
from layerwright.kernels.liger_decode.reference import liger_decode_reference
from layerwright.kernels.ring import Ring
from layerwright.kernels.streaming_attention.blockwise import streaming_attention_blockwise
from layerwright.kernels.streaming_attention.reference import visible_keys

SHAPE = MODELS[0]
H, G, D = SHAPE.H, SHAPE.G, SHAPE.d
Operator = Callable[..., Any]  # a kernel's form, in Triton or in torch
TensorArm = Callable[..., Tensor]


def drawn(
    device: str, *shapes: tuple[int, ...], dtype: torch.dtype = torch.bfloat16
) -> Callable[[int], list[Tensor]]:
    """Draws random tensors that ask for gradients, from a seed."""

    def draw(seed: int) -> list[Tensor]:
        numbers = torch.Generator(device).manual_seed(seed)
        return [
            torch.randn(shape, generator=numbers, device=device).to(dtype).requires_grad_()
            for shape in shapes
        ]

    return draw


def with_gradients(forward: Callable[..., Tensor]) -> Callable[..., tuple[Tensor, ...]]:
    """The gradients of the inputs, for a gradient of the output that depends on it."""

    def run(*inputs: Tensor) -> tuple[Tensor, ...]:
        out = forward(*inputs)
        return torch.autograd.grad(out, inputs, out.detach())

    return run


def exact(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The same on inputs in fp32."""
    return lambda *inputs: forward(*(x.float() for x in inputs))


def without_gradients(forward: Arm) -> Arm:
    return torch.no_grad()(forward)


def case(
    rows: Sequence[Row],
    shape: str,
    draw: Callable[[int], list[Tensor]],
    arms: Mapping[str, Any],
    expected: Any,
    wrap: Callable[[Any], Arm] = without_gradients,
    work: float = 1,
    more_bytes: float = 0,
) -> Case:
    """A case of passes that run one after the other, with or without gradients.

    Args:
        work: what the passes' work is multiplied by.
        more_bytes: bytes that the arms move besides those of the passes.
    """
    flops = work * sum(row.flops for row in rows)
    fewest = sum(row.fewest_bytes for row in rows) + more_bytes
    wrapped = {name: wrap(arm) for name, arm in arms.items()}
    return Case(rows[-1].operator, shape, flops, fewest, draw, wrapped, wrap(expected))


@cache
def flex(tokens: int, device: str) -> Callable[..., Tensor]:
    """FlexAttention, compiled, with the same mask."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    def seen(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return (j <= i) & ((i - j < WINDOW) | (j < SINKS))

    # compiled, or it would hold the whole T x T mask
    mask = create_block_mask(seen, None, None, tokens, tokens, device=device, _compile=True)
    return partial(torch.compile(flex_attention), block_mask=mask, enable_gqa=True)


def attention(device: str, quick: bool) -> Iterator[Case]:
    """Streaming attention over a prompt, forward and with its backward pass."""
    from layerwright.kernels.streaming_attention.fused import streaming_attention_fused

    for tokens in (2048,) if quick else (4096, 16384, 65536, 131072):
        there = torch.arange(tokens)[None]

        def ours(q: Tensor, k: Tensor, v: Tensor, run: Operator, at: Tensor) -> Tensor:
            return run(q, k, v, at, at, SINKS, WINDOW)

        def masked(q: Tensor, k: Tensor, v: Tensor, at: Tensor) -> Tensor:
            mask = visible_keys(at, at, SINKS, WINDOW)[:, None]
            return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)

        def by_flex(q: Tensor, k: Tensor, v: Tensor, tokens: int = tokens) -> Tensor:
            return flex(tokens, device)(q, k, v)

        def full(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)

        of_device = there.to(device)
        blockwise: TensorArm = partial(ours, run=streaming_attention_blockwise, at=there)
        arms: dict[str, TensorArm] = {
            "ours": partial(ours, run=streaming_attention_fused, at=of_device),
            "torch, blockwise": blockwise,
            "FlexAttention": by_flex,
        }
        if tokens <= 16384:  # the mask alone is T x T
            arms["SDPA with mask"] = partial(masked, at=of_device)
        whole, forward, backward = prefill_rows(SHAPE, tokens)
        shapes = (1, H, tokens, D), (1, G, tokens, D), (1, G, tokens, D)
        flash, times = {"flash, SDPA causal": full}, whole.flops / forward.flops
        for rows, wrap in (((forward,), without_gradients), ((forward, backward), with_gradients)):
            what = f"T={tokens}", drawn(device, *shapes)
            yield case(rows, *what, arms, exact(blockwise), wrap)
            name = "full attention" + (" backward" if wrap is with_gradients else "")
            yield replace(case(rows, *what, flash, full, wrap, work=times), operator=name)


def recurrence(device: str, quick: bool) -> Iterator[Case]:
    """Per-channel decay over a prompt (GLA), forward and with its backward pass."""
    from layerwright.kernels.gated_recurrence.fused import gated_recurrence_fused

    def ours(q: Tensor, k: Tensor, v: Tensor, x: Tensor, run: Operator) -> Tensor:
        state = torch.zeros(1, k.shape[1], D, D, device=device)
        return run(q, k, v, F.logsigmoid(x) / 16, state, "key")[0].to(q.dtype)

    def by_fla(q: Tensor, k: Tensor, v: Tensor, x: Tensor) -> Tensor:
        from fla.ops.gla import chunk_gla

        r = q.shape[1] // k.shape[1]
        k, v, g = (y.repeat_interleave(r, dim=1) for y in (k, v, F.logsigmoid(x) / 16))
        q, k, v, g = (y.transpose(1, 2) for y in (q, k, v, g))
        return chunk_gla(q, k, v, g.float(), scale=1.0)[0].transpose(1, 2)

    blockwise: TensorArm = partial(ours, run=gated_recurrence_chunked)
    arms: dict[str, TensorArm] = {
        "ours": partial(ours, run=gated_recurrence_fused),
        "torch, blockwise": blockwise,
        "flash-linear-attention": by_fla,
    }
    for tokens in (1024,) if quick else (2048, 8192, 32768):
        for heads in (G, H):  # as in the model, and without groups, as fla has them
            forward, backward = recurrence_rows(replace(SHAPE, G=heads), tokens)
            shapes = (1, H, tokens, D), *[(1, heads, tokens, D)] * 3
            for rows, wrap in (
                ((forward,), without_gradients), ((forward, backward), with_gradients)
            ):  # fmt: skip
                for dtype in (torch.float32, torch.bfloat16):
                    shape = f"T={tokens}, {heads} states, {str(dtype).removeprefix('torch.')}"
                    draw = drawn(device, *shapes, dtype=dtype)
                    one = case(rows, shape, draw, arms, exact(blockwise), wrap)
                    yield replace(one, fewest_bytes=one.fewest_bytes * dtype.itemsize / SINGLE)


def decode(device: str, quick: bool) -> Iterator[Case]:
    """One new token a row: streaming attention over a full ring, and Liger's layer."""
    from layerwright.kernels.liger_decode.fused import liger_decode_fused
    from layerwright.kernels.streaming_attention.triton_decode import attend_once

    slots = SINKS + WINDOW
    there = torch.arange(slots, device=device)[None]
    liger_there = torch.arange(LIGER_WINDOW, device=device)[None]

    def ours(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attend_once(q, k, v, there[:, -1:], there, SINKS, WINDOW)[0]

    def by_sdpa(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        grouped = q.unflatten(1, (G, H // G))[:, :, :, 0]
        return F.scaled_dot_product_attention(grouped, k, v).flatten(1, 2)[:, :, None]

    def liger(*inputs: Tensor, run: Operator) -> tuple[Tensor, Tensor]:
        """On copies, so that a repetition finds what the first one found; they are timed too."""
        q, k, v, rq, rk, keys, values, state = inputs
        ring = Ring(keys.clone(), values.clone(), liger_there.clone(), 0)
        token = NewToken(q, k, v, rq, rk, liger_there[:, :1] + LIGER_WINDOW)
        shares, updated = torch.full((2, H), 0.5, device=device), state.float()
        return run(token, ring, updated, LigerMix("gla", None, shares, LIGER_WINDOW)), updated

    for batch in (2,) if quick else (1, 8, 64):
        _, streaming, _, joined = decode_rows(SHAPE, batch)
        heads, one = (batch, H, 1, D), (batch, G, 1, D)
        ring = (batch, G, slots, D)
        draw = drawn(device, heads, ring, ring)
        arms: dict[str, Any] = {"ours": ours, "SDPA": by_sdpa}
        yield case([streaming], f"B={batch}, {slots} keys", draw, arms, exact(by_sdpa))
        small = (batch, G, LIGER_WINDOW, D)
        shapes = heads, one, one, heads, one, small, small, (batch, G, D, D)
        moved = 2 * 2 * batch * G * LIGER_WINDOW * 2 * D + 6 * batch * G * D * D  # the copies
        fused, three = (partial(liger, run=f) for f in (liger_decode_fused, liger_decode_reference))
        arms = {"ours": fused, "ours, three operators": three}
        draw = drawn(device, *shapes)
        yield case([joined], f"B={batch}", draw, arms, three, more_bytes=moved)


def mass(device: str, quick: bool) -> Iterator[Case]:
    """Covered mass of several spans."""
    from layerwright.kernels.covered_mass.fused import covered_mass_fused

    def run(q: Tensor, k: Tensor, by: Operator) -> Tensor:
        there = torch.arange(k.shape[2], device=device)[None]
        return by(q, k, SPANS, SINKS, there[:, -QUERIES:], there)

    for tokens in (1024,) if quick else (8192, 131072):
        row = mass_row(SHAPE, tokens)
        shapes = (1, H, QUERIES, D), (1, G, tokens, D)
        by_torch = partial(run, by=covered_mass_reference)
        arms = {"ours": partial(run, by=covered_mass_fused), "torch": by_torch}
        yield case([row], row.shape, drawn(device, *shapes), arms, exact(by_torch))
