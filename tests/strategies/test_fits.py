"""Fitted tensors against scipy and numpy, on streams that tests make themselves."""

import numpy as np
import pytest
import torch
from facts import says
from scipy.linalg import lstsq
from tiny import LAYER_SPECS, LAYERS, tiny_hybrid, tiny_tokens

from layerwright.tasks.errors import InputError
from layerwright.tasks.models.conversion import assign_tensors, converted
from layerwright.tasks.passes.fitting import convert_in_place
from layerwright.tasks.strategies.fitting.ridge import RIDGES, fit_ridge
from layerwright.tasks.strategies.gated_recurrence import GatedRecurrence
from layerwright.tasks.strategies.keep import Keep
from layerwright.tasks.strategies.linear import Linear
from layerwright.tasks.strategies.remove import Remove
from layerwright.tasks.strategies.specs import Assignment
from layerwright.tasks.strategies.streaming import Streaming
from layerwright.tasks.strategies.window import Window

ROWS = tiny_tokens(6, 90)


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


def base():
    return tiny_hybrid(LAYER_SPECS["full"])


def plan(*parts) -> list[Assignment]:
    """(start, stop, strategy) of the layers that are not kept."""
    kept = set(range(LAYERS)) - {i for start, stop, _ in parts for i in range(start, stop)}
    return sorted(
        [Assignment(*part) for part in parts] + [Assignment(i, i + 1, Keep()) for i in kept]
    )


def samples(x, e, weight=None):
    weight = torch.ones(x.shape[0], x.shape[1], 1) if weight is None else weight
    return ((row, x[row], e[row], weight[row]) for row in range(len(x)))


def test_least_squares_without_noise_is_scipys():
    torch.manual_seed(0)
    x, true = torch.randn(8, 40, 6) + 3, torch.randn(6, 6)
    e = x @ true + torch.arange(6.0)
    fitted, bias, ridge = fit_ridge(samples(x, e), 6, 8, intercept=True)
    assert ridge == min(RIDGES)
    design = np.c_[x.flatten(0, 1).numpy(), np.ones(320)]
    expected = lstsq(design.astype(np.float64), e.flatten(0, 1).double().numpy())[0]
    assert np.allclose(fitted.numpy(), expected[:-1], atol=2e-4)
    assert np.allclose(bias.numpy(), expected[-1], atol=2e-3)


def test_the_ridge_is_numpys_and_is_chosen_on_ordinary_tokens_that_were_not_fitted():
    torch.manual_seed(1)
    x = torch.randn(8, 30, 20) * torch.linspace(0.1, 5, 20)
    e = x @ torch.randn(20, 20) * 0.05 + torch.randn(8, 30, 20)
    ordinary = (torch.rand(8, 30, 1) > 0.2).float()
    e = torch.where(ordinary > 0, e, 50 * e)  # what is not ordinary would decide, if it were asked
    fitted, _, ridge = fit_ridge(samples(x, e, ordinary), 20, 8, intercept=False)

    def solve(rows, r):
        inputs, outputs = (t[rows].flatten(0, 1).double().numpy() for t in (x, e))
        gram = inputs.T @ inputs
        return np.linalg.solve(gram + r * np.diag(np.diag(gram)), inputs.T @ outputs)

    rest, asked = [0, 1, 2, 4, 5, 6], ordinary[[3, 7]][..., 0] > 0
    unseen = [t[[3, 7]][asked].double().numpy() for t in (x, e)]
    errors = {r: ((unseen[0] @ solve(rest, r) - unseen[1]) ** 2).sum() for r in RIDGES}
    near = [r for r, error in errors.items() if error <= 1.01 * min(errors.values())]
    assert ridge == min(near)
    assert ridge > min(RIDGES), "noise asks for more than the least"
    assert np.allclose(fitted.numpy(), solve(list(range(8)), ridge), atol=1e-3)


@pytest.mark.parametrize(
    ("rows", "tokens", "message"), [(1, 90, "too few"), (2, 9, "18 calibration tokens are too few")]
)
def test_too_little_to_fit_on_is_refused(rows, tokens, message):
    x = torch.randn(rows, tokens, 10)
    with pytest.raises(InputError, match=message):
        fit_ridge(samples(x, x), 10, rows, intercept=True)


def test_a_linear_run_is_one_map_of_its_ends():
    model, original = base(), base()
    tensors = convert_in_place(model, plan((1, 3, Linear())), lambda: ROWS)
    assert set(tensors) == {"model.layers.1.linear.weight", "model.layers.1.linear.bias"}
    kinds = [spec["feed_forward"]["kind"] for spec in model.config.layer_specs]
    assert kinds == ["mlp", "linear", "none", "mlp"]
    x, placement = original.model.prepare(ROWS)
    x = original.model.run_layers(x, placement, 0, 1)
    y = original.model.run_layers(x, placement, 1, 3)
    mapped = model.model.run_layers(x, placement, 1, 3)
    lost = (mapped - y).square().sum()
    assert lost < 0.8 * (x - y).square().sum(), "better than removing the run"
    unseen, place = original.model.prepare(tiny_tokens(4, 90, seed=5))
    unseen = original.model.run_layers(unseen, place, 0, 1)
    target = original.model.run_layers(unseen, place, 1, 3)
    lost = (model.model.run_layers(unseen, place, 1, 3) - target).square().sum()
    assert lost < (unseen - target).square().sum(), "on tokens never seen as well"


def test_a_map_above_another_is_fitted_on_the_converted_stream():
    """Its input is what really arrives there, and its target what the base would have there."""
    narrow = Streaming(sinks=0, window=1)
    model = base()
    tensors = convert_in_place(model, plan((0, 1, narrow), (2, 3, Linear())), lambda: ROWS)
    original = base()
    x, placement = original.model.prepare(ROWS)
    y = original.model.run_layers(x, placement, 0, 3)
    with converted(original, {0: narrow.layer_spec(LAYER_SPECS["full"])}):
        x = original.model.run_layers(x, placement, 0, 2)
    alone = base()
    lone = convert_in_place(alone, plan((2, 3, Linear())), lambda: ROWS)
    errors = []
    for found in (tensors, lone):
        weight, bias = found["model.layers.2.linear.weight"], found["model.layers.2.linear.bias"]
        errors.append((x + x @ weight.T + bias - y).square().sum())
    assert errors[0] < 0.95 * errors[1]


@pytest.mark.parametrize("biased", [False, True])
def test_a_patch_is_the_least_squares_answer_of_the_layer_below(biased):
    model = tiny_hybrid(LAYER_SPECS["full"], mlp_bias=biased)
    original = tiny_hybrid(LAYER_SPECS["full"], mlp_bias=biased)
    for one in (model, original):
        for layer in one.model.layers:
            if biased:
                layer.mlp.down_proj.bias.copy_(torch.linspace(-1, 1, 48))
    tensors = convert_in_place(model, plan((1, 3, Remove(patch=True))), lambda: ROWS)
    name = "model.layers.0.mlp.down_proj"
    assert set(tensors) == {f"{name}.weight", *([f"{name}.bias"] if biased else [])}
    x, placement = original.model.prepare(ROWS)
    y = original.model.run_layers(x, placement, 0, 3)
    block = original.model.layers[0]
    stream = x + block.self_attn(block.input_layernorm(x), placement)
    added = block.mlp(block.post_attention_layernorm(stream))
    m, wanted = added.flatten(0, 1).double(), (y - stream).flatten(0, 1).double()
    gram = m.T @ m
    best = min(
        (torch.linalg.solve(gram + r * gram.diagonal().diag(), m.T @ wanted) for r in RIDGES),
        key=lambda t: (
            ((added.double() @ t) - (model.model.run_layers(x, placement, 0, 3) - stream))
            .square()
            .sum()
        ),
    )
    patched = model.model.run_layers(x, placement, 0, 3)
    assert torch.allclose(patched, stream + (added.double() @ best).float(), atol=2e-3)
    assert (patched - y).square().sum() < (stream + added - y).square().sum()


@pytest.mark.parametrize(
    "parts", [[(0, 1, Remove(patch=True))], [(0, 1, Remove()), (1, 2, Remove(patch=True))]]
)
def test_a_patch_needs_a_feed_forward_below(parts):
    with pytest.raises(InputError, match="feed-forward"):
        convert_in_place(base(), plan(*parts), lambda: ROWS)


def test_plans_that_fit_nothing_read_no_rows():
    def rows():
        raise AssertionError("nobody needs rows")

    assert convert_in_place(base(), plan((1, 2, Streaming(window=9)), (3, 4, Remove())), rows) == {}


def test_given_tensors_do_not_reach_models_that_share_the_module():
    model = base()
    before = model.model.layers[1].mlp.down_proj.weight.clone()
    name = "model.layers.1.mlp.down_proj.weight"
    with converted(model, {2: LAYER_SPECS["removed"]}, {name: torch.zeros_like(before)}):
        assert not model.get_parameter(name).any()
        assert model.model.layers[2].mlp is None
    assert model.get_parameter(name).equal(before)
    assert model.model.layers[2].mlp is not None
    assign_tensors(model, {name: torch.ones(before.shape, dtype=torch.float64)})
    assert model.get_parameter(name).dtype == torch.float32


@pytest.mark.parametrize(("kind", "heads"), [("layer", 1), ("head", 6)])
def test_a_learned_mix_is_given_the_shares_and_stays_out_where_it_is_not_asked_for(kind, heads):
    gated = GatedRecurrence(window=4, alpha=0.75, beta=0.25, learned_mix=kind)
    model = base()
    found = convert_in_place(model, plan((1, 2, gated)), lambda: ROWS)
    name = "model.layers.1.self_attn.mix"
    assert torch.equal(found[name], torch.tensor([[0.75], [0.25]]).repeat(1, heads))
    assert torch.equal(model.get_parameter(name), found[name])
    plainly = GatedRecurrence(window=4, alpha=0.75, beta=0.25)
    assert not plainly.fits
    assert "learned_mix" not in plainly.layer_spec(LAYER_SPECS["full"])["mixer"]


def attention_error(model, original, layer: int) -> float:
    """Error of one layer's attention on the base's stream, past the window."""
    x, placement = original.model.prepare(ROWS)
    x = original.model.run_layers(x, placement, 0, layer)
    found, full = (m.model.layers[layer].mixed(x, placement) for m in (model, original))
    return (found - full)[:, 20:].square().sum().item()


def test_mean_logits_are_the_first_tokens_log_sum_exp():
    model, original = base(), base()
    tensors = convert_in_place(model, plan((1, 2, Window(window=20, logits="mean"))), lambda: ROWS)
    assert set(tensors) == {"model.layers.1.self_attn.sinks"}
    x, placement = original.model.prepare(ROWS)
    x = original.model.run_layers(x, placement, 0, 1)
    layer = original.model.layers[1]
    q, k, _ = layer.self_attn.project(layer.input_layernorm(x), placement.rotary)
    scores = q[:, :, 20:] @ k[:, :, :4].repeat_interleave(3, dim=1).mT * 8**-0.5
    expected = scores.logsumexp(-1).mean((0, 2))
    torch.testing.assert_close(tensors["model.layers.1.self_attn.sinks"], expected)


def test_fitted_logits_lose_least_of_full_attention():
    """No change of a single logit by a tenth brings the output nearer."""
    original = base()
    errors = {}
    for logits in ("mean", "fitted"):
        model = base()
        convert_in_place(model, plan((2, 3, Window(window=20, logits=logits))), lambda: ROWS)
        errors[logits] = attention_error(model, original, 2)
    assert errors["fitted"] < errors["mean"]
    sinks = model.model.layers[2].self_attn.sinks
    for head in range(6):
        for change in (-0.1, 0.1):
            sinks[head] += change
            assert attention_error(model, original, 2) > errors["fitted"]
            sinks[head] -= change


def test_rows_within_the_window_are_refused():
    with pytest.raises(InputError, match=says("90", "profile.row_tokens")):
        convert_in_place(base(), plan((1, 2, Window(window=90))), lambda: ROWS)
