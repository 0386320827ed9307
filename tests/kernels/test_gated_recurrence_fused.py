"""Gated recurrence by Triton against its fp64 definition, outputs poisoned with NaN."""

import pytest
import torch
import torch.nn.functional as F
from tolerance import KERNEL, relative_rms

from layerwright.kernels.gated_recurrence import gated_recurrence, gated_recurrence_step
from layerwright.kernels.gated_recurrence.reference import gated_recurrence_reference

pytestmark = pytest.mark.usefixtures("fused")

# How the logarithm of the decay is drawn: nearly nothing forgotten to everything, token by token.
DECAYS = {
    "weak": lambda x: F.logsigmoid(x) / 16,
    "strong": lambda x: F.logsigmoid(40 * x - 20),
    "mixed": lambda x: torch.where(x > 1, -1e4 * x, torch.where(x < 0, 0.0, -x)),
    "to nothing": lambda x: torch.where(x > 1.5, -torch.inf, -x.abs() / 8),
}
# tokens, (query and key heads), (key and value channels), decay
CASES = [
    (1, (6, 2), (5, 7), "weak"),
    (1, (4, 1), (33, 1), "to nothing"),
    (63, (2, 2), (13, 5), "strong"),
    (64, (4, 2), (8, 19), "mixed"),
    (64, (2, 1), (5, 3), "to nothing"),
    (257, (2, 1), (13, 8), "weak"),
]
NAMES = ("q", "k", "v", "log_decay", "state")


def draw(length, heads, sizes, decay, decayed, device, dtype=torch.float32, batch=1):
    """q, k, v, log decay and an initial state in fp32 that ask for gradients."""
    generator = torch.Generator().manual_seed(length)
    (H, G), (d, e) = heads, sizes
    c = d if decayed == "key" else e
    shapes = [(H, length, d), (G, length, d), (G, length, e), (G, length, c), (G, d, e)]
    drawn = [torch.randn(batch, *s, generator=generator) for s in shapes]
    drawn[3] = DECAYS[decay](drawn[3])
    tensors = [*(x.to(dtype) for x in drawn[:4]), drawn[4]]
    return [x.to(device).requires_grad_() for x in tensors]


def exact(tensors):
    return [x.detach().double().requires_grad_() for x in tensors]


@pytest.mark.parametrize("decayed", ["key", "value"])
@pytest.mark.parametrize(("length", "heads", "sizes", "decay"), CASES)
def test_output_state_and_gradients_match_the_reference(
    length, heads, sizes, decay, decayed, device
):
    inputs = draw(length, heads, sizes, decay, decayed, device)
    doubles = exact(inputs)
    expected = gated_recurrence_reference(*doubles, decayed)
    found = gated_recurrence(*inputs, decayed=decayed, return_state=True)
    limit = KERNEL[torch.float32]
    for name, x, y in zip(("out", "state"), found, expected, strict=True):
        assert relative_rms(x, y) <= limit, name
    weights = [torch.randn_like(x) for x in found]
    gradients = torch.autograd.grad(found, inputs, weights)
    wanted = torch.autograd.grad(expected, doubles, [w.double() for w in weights])
    for name, x, y in zip(NAMES, gradients, wanted, strict=True):
        assert relative_rms(x, y) <= limit, name


@pytest.mark.parametrize("decayed", ["key", "value"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_near_fp64(dtype, decayed, device):
    inputs = draw(100, (4, 2), (16, 8), "weak", decayed, device, dtype)
    doubles = exact(inputs)
    expected = gated_recurrence_reference(*doubles, decayed)
    out, last = gated_recurrence(*inputs, decayed=decayed, return_state=True)
    assert (out.dtype, last.dtype) == (dtype, torch.float32)
    assert relative_rms(out, expected[0]) <= KERNEL[dtype]
    assert relative_rms(last, expected[1]) <= KERNEL[dtype]
    wanted = torch.autograd.grad(expected[0].sum(), doubles)
    for name, x, y in zip(NAMES, torch.autograd.grad(out.sum(), inputs), wanted, strict=True):
        assert relative_rms(x, y) <= KERNEL[dtype], name


@pytest.mark.parametrize("decayed", ["key", "value"])
def test_split_tokens_equal_the_whole(decayed, device):
    """In chunks that end within a block, and token by token over a state updated in place."""
    *inputs, state = (
        x.detach() for x in draw(100, (4, 2), (5, 7), "strong", decayed, device, batch=2)
    )
    whole, last = gated_recurrence(*inputs, state, decayed=decayed, return_state=True)
    outs = []
    for start, stop in ((0, 70), (70, 97)):
        pieces = (x[:, :, start:stop] for x in inputs)
        out, state = gated_recurrence(*pieces, state, decayed=decayed, return_state=True)
        outs.append(out)
    place = state.data_ptr()
    for t in range(97, 100):
        one = (x[:, :, t : t + 1] for x in inputs)
        outs.append(gated_recurrence_step(*one, state, decayed=decayed))
    assert state.data_ptr() == place
    assert relative_rms(torch.cat(outs, dim=2), whole) <= KERNEL[torch.float32]
    assert relative_rms(state, last) <= KERNEL[torch.float32]


def test_a_step_leaves_padding_rows_alone(device):
    *inputs, state = (x.detach() for x in draw(1, (4, 2), (5, 7), "weak", "key", device, batch=2))
    poisoned = [
        x.clone().index_fill_(0, torch.tensor([1], device=device), torch.nan) for x in inputs
    ]
    before = state.clone()
    mask = torch.tensor([[True], [False]], device=device)
    out = gated_recurrence_step(*poisoned, state, mask_B1=mask)
    assert state[1].equal(before[1])
    assert (out[1] == 0).all()
    expected = gated_recurrence(*(x[:1] for x in (*inputs, before)))
    assert relative_rms(out[:1], expected) <= KERNEL[torch.float32]


def test_strided_inputs(device):
    inputs = [x.detach() for x in draw(70, (4, 2), (9, 5), "weak", "key", device)]
    expected = gated_recurrence(*inputs)
    q, k, v, g, state = inputs
    by_token = (x.transpose(1, 2).contiguous().transpose(1, 2) for x in (q, k, v))
    assert gated_recurrence(*by_token, g.mT.contiguous().mT, state).equal(expected)


@pytest.mark.parametrize("decayed", ["key", "value"])
def test_compiles_whole(decayed, device):
    """torch.compile traces through the operator and its gradient without a break."""
    inputs = draw(20, (2, 1), (5, 3), "weak", decayed, device)

    def loss(*tensors):
        return gated_recurrence(*tensors, decayed=decayed).square().sum()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    expected, found = (torch.autograd.grad(f(*inputs), inputs) for f in (loss, compiled))
    for name, x, y in zip(NAMES, found, expected, strict=True):
        assert relative_rms(x, y) <= KERNEL[torch.float32], name


def test_a_step_compiles_whole(device):
    """torch.compile sees that the state changes in place."""
    *inputs, state = (x.detach() for x in draw(1, (4, 2), (5, 7), "weak", "key", device))
    run = torch.compile(gated_recurrence_step, fullgraph=True, backend="aot_eager")
    states = state.clone(), state.clone()
    expected, found = gated_recurrence_step(*inputs, states[0]), run(*inputs, states[1])
    assert relative_rms(found, expected) <= KERNEL[torch.float32]
    assert relative_rms(states[1], states[0]) <= KERNEL[torch.float32]
    assert not states[1].equal(state)
