"""Liger's decode step against the mixture written out token by token."""

import pytest
import torch
from tolerance import KERNEL, relative_rms

from layerwright.kernels.liger_decode import LigerMix, NewToken, liger_decode
from layerwright.kernels.ring import Ring

G, H, SINKS, WINDOW = 2, 6, 2, 5


def by_the_formula(q, k, v, rotated_q, rotated_k, gate, bias, shares, t):
    """o of token t (B, H, d) in fp64, all tokens before it at hand."""
    heads = [x.double().repeat_interleave(H // G, dim=1) for x in (k, v, rotated_k)]
    k, v, rotated_k = (x[:, :, : t + 1] for x in heads)
    b = 0 if bias is None else bias.double().repeat_interleave(H // G, dim=0)[:, None]
    decay = torch.sigmoid(k + b) ** (1 / 16 if gate == "gla" else 1)
    state = torch.zeros(*v.shape[:2], v.shape[3], v.shape[3], dtype=torch.float64, device=v.device)
    for i in range(t + 1):
        feature = k[:, :, i].softmax(-1) if gate == "gla" else 1 - decay[:, :, i]
        state = decay[:, :, i, :, None] * state + feature[..., None] * v[:, :, i, None]
    far = torch.einsum("bhd,bhde->bhe", q[:, :, t].double().softmax(-1), state)
    j = torch.arange(t + 1, device=v.device)
    scores = torch.einsum("bhd,bhjd->bhj", rotated_q[:, :, t].double(), rotated_k)
    hidden = (t - j >= WINDOW) & (j >= SINKS)
    weights = (scores * v.shape[3] ** -0.5).masked_fill(hidden, -torch.inf).softmax(-1)
    near = torch.einsum("bhj,bhje->bhe", weights, v)
    return shares[0, :, None] * far + shares[1, :, None] * near


@pytest.mark.usefixtures("both")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("gate", "with_bias", "size"), [("gla", True, 13), ("hgrn2", False, 40)])
def test_token_by_token_is_the_formula(gate, with_bias, size, dtype, device):
    generator = torch.Generator().manual_seed(0)

    def draw(heads):
        drawn = torch.randn(2, heads, 10, size, generator=generator) * 2
        return drawn.to(device, dtype)

    q, rotated_q, k, rotated_k, v = (draw(h) for h in (H, H, G, G, G))
    bias = torch.randn(G, size, generator=generator).to(device) if with_bias else None
    shares = torch.rand(2, H, generator=generator).to(device)
    slots = SINKS + WINDOW
    ring = Ring(
        k.new_zeros(2, G, slots, size),
        k.new_zeros(2, G, slots, size),
        torch.full((1, slots), -1, device=device),
        SINKS,
    )
    state = torch.zeros(2, G, size, size, device=device)
    for t in range(10):
        vectors = (x[:, :, t : t + 1] for x in (q, k, v, rotated_q, rotated_k))
        token = NewToken(*vectors, torch.tensor([[t]], device=device))
        out = liger_decode(token, ring, state, LigerMix(gate, bias, shares, WINDOW))
        expected = by_the_formula(q, k, v, rotated_q, rotated_k, gate, bias, shares.double(), t)
        assert out.dtype == dtype
        assert relative_rms(out[:, :, 0], expected) <= KERNEL[dtype], t
    assert ring.positions.tolist() == [[0, 1, 7, 8, 9, 5, 6]]


@pytest.mark.usefixtures("fused")
def test_compiles_whole(device):
    """torch.compile sees what changes in place: ring and state."""
    generator = torch.Generator().manual_seed(0)
    q, rotated_q, k, rotated_k, v = (
        torch.randn(1, heads, 1, 8, generator=generator).to(device) for heads in (H, H, G, G, G)
    )
    shares, position = torch.rand(2, H).to(device), torch.tensor([[3]], device=device)

    def step(keys, values, there, state):
        ring = Ring(keys, values, there, SINKS)
        token = NewToken(q, k, v, rotated_q, rotated_k, position)
        return liger_decode(token, ring, state, LigerMix("gla", None, shares, WINDOW))

    held = [torch.randn(1, G, 7, 8).to(device), torch.randn(1, G, 7, 8).to(device)]
    held += [torch.tensor([[0, 1, 2, -1, -1, -1, -1]], device=device)]
    held += [torch.randn(1, G, 8, 8).to(device)]
    eager, traced = ([x.clone() for x in held] for _ in range(2))
    expected = step(*eager)
    found = torch.compile(step, fullgraph=True, backend="aot_eager")(*traced)
    assert relative_rms(found, expected) <= KERNEL[torch.float32]
    for x, y, before in zip(traced, eager, held, strict=True):
        assert relative_rms(x, y) <= KERNEL[torch.float32]
        assert not x.equal(before)


def test_other_gates_are_refused():
    with pytest.raises(ValueError, match="gate must be 'gla' or 'hgrn2', got 'gsa'"):
        liger_decode(None, None, None, LigerMix("gsa", None, None, 4))
