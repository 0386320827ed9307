"""Gated recurrence against its fp64 definition, and that against another project's."""

import importlib.util
from itertools import product
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from pairs import pairwise
from tolerance import KERNEL, relative_rms

from layerwright.kernels.gated_recurrence import gated_recurrence
from layerwright.kernels.gated_recurrence.chunked import gated_recurrence_chunked
from layerwright.kernels.gated_recurrence.reference import gated_recurrence_reference

# (query and key heads), (key and value channels)
CASES = [((6, 2), (5, 7)), ((3, 3), (8, 8)), ((4, 1), (13, 1))]
# How the logarithm of the decay is drawn: nearly nothing forgotten to everything, token by token.
DECAYS = {
    "weak": lambda x: F.logsigmoid(x) / 16,
    "strong": lambda x: F.logsigmoid(40 * x - 20),
    "mixed": lambda x: torch.where(x > 1, -1e4 * x, torch.where(x < 0, 0.0, -x)),
}
BATCH = 3
NAMES = ("q", "k", "v", "log_decay", "state")


def draw(length, heads=(6, 2), sizes=(5, 7), decay="weak", decayed="key", dtype=torch.float64):
    """q, k, v, log decay and an initial state that ask for gradients."""
    generator = torch.Generator().manual_seed(length)
    (H, G), (d, e) = heads, sizes
    c = d if decayed == "key" else e
    shapes = [(H, length, d), (G, length, d), (G, length, e), (G, length, c), (G, d, e)]
    drawn = [torch.randn(BATCH, *s, generator=generator, dtype=torch.float64) for s in shapes]
    drawn[3] = DECAYS[decay](drawn[3])
    return [x.to(dtype).requires_grad_() for x in drawn]


@pytest.mark.parametrize(
    ("heads", "sizes", "length", "decay", "decayed"),
    pairwise(CASES, list(product([1, 63, 64, 257], DECAYS)), ["key", "value"]),
)
def test_output_state_and_gradients_match_the_reference(heads, sizes, length, decay, decayed):
    inputs = draw(length, heads, sizes, decay, decayed)
    expected = gated_recurrence_reference(*inputs, decayed)
    weights = [torch.randn_like(x) for x in expected]
    gradients = torch.autograd.grad(expected, inputs, weights)
    for options in ({}, {"block": 16, "span": 48}):  # one span, and several
        actual = gated_recurrence_chunked(*inputs, decayed, **options)
        for name, x, y in zip(("out", "state"), actual, expected, strict=True):
            assert relative_rms(x, y) <= KERNEL[torch.float64], name
        found = torch.autograd.grad(actual, inputs, weights)
        for name, x, y in zip(NAMES, found, gradients, strict=True):
            assert relative_rms(x, y) <= KERNEL[torch.float64], name


@pytest.mark.parametrize("decayed", ["key", "value"])
@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_lower_precision_stays_near_fp64(dtype, decay, decayed):
    """A cumulative sum over a block would lose the digits of weak decays behind strong ones."""
    *inputs, state = draw(257, (6, 2), (16, 16), decay, decayed, dtype)
    state = state.float()
    exact = [x.detach().double().requires_grad_() for x in (*inputs, state)]
    expected = gated_recurrence_reference(*exact, decayed)
    out, last = gated_recurrence(*inputs, state, decayed=decayed, return_state=True)
    assert (out.dtype, last.dtype) == (dtype, torch.float32)
    assert relative_rms(out, expected[0]) <= KERNEL[dtype]
    assert relative_rms(last, expected[1]) <= KERNEL[torch.float32]
    gradients = torch.autograd.grad(expected[0].sum(), exact[:4])
    for name, x, y in zip(NAMES, torch.autograd.grad(out.sum(), inputs), gradients, strict=False):
        assert relative_rms(x, y) <= KERNEL[dtype], name


@pytest.mark.parametrize("decayed", ["key", "value"])
def test_a_decay_to_nothing_starts_afresh(decayed):
    q, k, v, log_decay, state = draw(100, decayed=decayed)
    cut = 70
    log_decay = torch.where(torch.arange(100)[:, None] == cut, -torch.inf, log_decay)
    inputs = q, k, v, log_decay, state
    out, last = gated_recurrence(*inputs, decayed=decayed, return_state=True)
    after, last_after = gated_recurrence(
        *(x[:, :, cut:] for x in inputs[:4]), decayed=decayed, return_state=True
    )
    assert relative_rms(out[:, :, cut:], after) <= KERNEL[torch.float64]
    assert relative_rms(last, last_after) <= KERNEL[torch.float64]
    for gradient in torch.autograd.grad(out.sum(), (q, k, v, state)):
        assert gradient.isfinite().all()


@pytest.mark.parametrize("decayed", ["key", "value"])
@pytest.mark.parametrize("cuts", [(64, 65, 150), (1, 2, 3, 130)])
def test_split_tokens_equal_the_whole(cuts, decayed):
    *inputs, state = draw(200, decay="strong", decayed=decayed)
    whole, last = gated_recurrence(*inputs, state, decayed=decayed, return_state=True)
    outs = []
    for start, stop in zip((0, *cuts), (*cuts, 200), strict=True):
        pieces = (x[:, :, start:stop] for x in inputs)
        out, state = gated_recurrence(*pieces, state, decayed=decayed, return_state=True)
        outs.append(out)
    assert relative_rms(torch.cat(outs, dim=2), whole) <= KERNEL[torch.float64]
    assert relative_rms(state, last) <= KERNEL[torch.float64]


@pytest.mark.parametrize("implementation", ["reference", "blockwise"])
@pytest.mark.parametrize("decayed", ["key", "value"])
def test_padding_is_as_if_it_were_not_there(monkeypatch, decayed, implementation):
    monkeypatch.setenv("LAYERWRIGHT_KERNELS", implementation)
    *inputs, state = draw(90, decayed=decayed)
    mask = torch.rand(BATCH, 90, generator=torch.Generator().manual_seed(0)) < 0.6
    mask[2] = False  # a row of nothing but padding
    padding = ~mask[:, None, :, None]
    poisoned = [x.detach().masked_fill(padding, torch.nan).requires_grad_() for x in inputs]
    options = {"decayed": decayed, "return_state": True}
    out, last = gated_recurrence(*poisoned, state, mask_BT=mask, **options)
    assert (out.masked_select(padding) == 0).all()
    assert last[2].equal(state[2])
    gradients = torch.autograd.grad((out.sum() + last.sum()), poisoned)
    for row in range(2):
        alone = [x[row : row + 1, :, mask[row]] for x in inputs]
        expected, expected_last = gated_recurrence(*alone, state[row : row + 1], **options)
        assert relative_rms(out[row, :, mask[row]], expected[0]) <= KERNEL[torch.float64]
        assert relative_rms(last[row], expected_last[0]) <= KERNEL[torch.float64]
        wanted = torch.autograd.grad((expected.sum() + expected_last.sum()), inputs)
        for x, y in zip(gradients, wanted, strict=True):
            assert relative_rms(x[row], y[row]) <= KERNEL[torch.float64]


def test_one_state_serves_its_group_of_query_heads():
    """Repeating keys, values and gates to the query heads, as public code does, changes nothing."""
    q, k, v, log_decay, state = draw(70)
    repeated = [x.repeat_interleave(3, dim=1) for x in (k, v, log_decay, state)]
    assert (
        relative_rms(gated_recurrence(q, k, v, log_decay, state), gated_recurrence(q, *repeated))
        <= KERNEL[torch.float64]
    )


def naive(module: str):
    """A plain torch module of flash-linear-attention, without the package, which wants a GPU."""
    folder = Path(importlib.util.find_spec("fla").submodule_search_locations[0])
    spec = importlib.util.spec_from_file_location(
        f"fla_{module}", folder / f"ops/{module}/naive.py"
    )
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def test_gated_linear_attention_is_theirs():
    inputs = draw(150, (4, 4), (8, 6), dtype=torch.float32)
    q, k, v, log_decay, state = inputs
    expected, expected_last = naive("gla").naive_recurrent_gla(
        *(x.transpose(1, 2) for x in (q * 8**0.5, k, v, log_decay)),  # theirs scales the queries
        initial_state=state,
        output_final_state=True,
    )
    out, last = gated_recurrence(*inputs, return_state=True)
    assert relative_rms(out, expected.transpose(1, 2)) <= KERNEL[torch.float32]
    assert relative_rms(last, expected_last) <= KERNEL[torch.float32]
    weights = torch.randn_like(out), torch.randn_like(last)
    wanted = torch.autograd.grad((expected.transpose(1, 2), expected_last), inputs, weights)
    found = torch.autograd.grad((out, last), inputs, weights)
    for name, x, y in zip(NAMES, found, wanted, strict=True):
        assert relative_rms(x, y) <= KERNEL[torch.float32], name


def test_gated_slot_attention_in_two_passes_is_theirs():
    q, k, _, log_decay, keys = draw(150, (6, 2), (8, 5), "weak", "value", torch.float32)
    write = -torch.expm1(log_decay)
    v, values = torch.randn(BATCH, 2, 150, 7), torch.randn(BATCH, 2, 5, 7)
    expected, states = naive("gsa").naive_recurrent_gsa(
        *(x.transpose(1, 2) for x in (q, k, v, write, log_decay)),
        scale=1.0,
        initial_state=(keys, values),
        output_final_state=True,
    )
    scores, last_keys = gated_recurrence(
        *(q, k, write, log_decay, keys), decayed="value", return_state=True
    )
    out, last_values = gated_recurrence(
        *(scores.softmax(-1), write, v, log_decay, values), return_state=True
    )
    assert relative_rms(out, expected.transpose(1, 2)) <= KERNEL[torch.float32]
    assert relative_rms(last_keys, states[0]) <= KERNEL[torch.float32]
    assert relative_rms(last_values, states[1]) <= KERNEL[torch.float32]


def test_memory_stays_linear():
    """At T = 8192 no T × T tensor (64 MiB even as booleans) is made."""
    q, k, v = (torch.randn(1, 1, 8192, 8) for _ in range(3))
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        gated_recurrence(q, k, v, F.logsigmoid(k))
    largest = max(abs(event.cpu_memory_usage) for event in profile.events())
    assert largest < 4 * 2**20


def test_implementation_can_be_chosen(monkeypatch):
    inputs = draw(20)
    blockwise = gated_recurrence(*inputs)
    monkeypatch.setenv("LAYERWRIGHT_KERNELS", "reference")
    assert relative_rms(blockwise, gated_recurrence(*inputs)) <= KERNEL[torch.float64]
    monkeypatch.setenv("LAYERWRIGHT_KERNELS", "fastest")
    with pytest.raises(ValueError, match="'fastest'"):
        gated_recurrence(*inputs)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"decayed": "both"}, "decayed must be 'key' or 'value'"),
        ({"decayed": "value"}, r"log_decay must have shape \(3, 2, 9, 7\)"),
        ({"q": (3, 5, 9, 5)}, "5 query heads are not a multiple of 2"),
        ({"q": (3, 6, 9, 4)}, r"q must have shape \(3, 6, 9, 5\)"),
        ({"v": (3, 2, 8, 7)}, r"v must have shape \(3, 2, 9, 7\)"),
        ({"initial_state": (3, 2, 7, 5)}, r"initial_state must have shape \(3, 2, 5, 7\)"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(change, message):
    names = ("q_BHTd", "k_BGTd", "v_BGTe", "log_decay_BGTc", "initial_state")
    arguments = dict(zip(names, draw(9), strict=True))
    for name, value in change.items():
        full = next((n for n in names if n.split("_")[0] == name), name)
        arguments[full] = torch.zeros(value) if isinstance(value, tuple) else value
    with pytest.raises(ValueError, match=message):
        gated_recurrence(**arguments)


def test_no_token_is_refused():
    with pytest.raises(ValueError, match="at least one token"):
        gated_recurrence(*draw(0))
