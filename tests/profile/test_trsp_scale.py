"""TRSP's stage 1 against a plain training loop, on text that the tiny model itself speaks."""

import json
from pathlib import Path

import pytest
import torch
from facts import says
from tiny import LAYER_SPECS, LAYERS, tiny_hybrid, tiny_tokens
from torch import Tensor

from layerwright.tasks.errors import InputError, StepError
from layerwright.tasks.hybrid.modeling import HybridForCausalLM
from layerwright.tasks.models.conversion import converted
from layerwright.tasks.passes.likelihood import token_nll
from layerwright.tasks.profile.base import Subject
from layerwright.tasks.profile.model import run_profilers
from layerwright.tasks.profile.profilers.block_influence import BlockInfluence
from layerwright.tasks.profile.profilers.trsp_scale import TrspScale, scaled_nll
from layerwright.tasks.progress import progress

REMOVED = LAYER_SPECS["removed"]


def model_without(dead: int | None = None) -> HybridForCausalLM:
    """The tiny model; layer ``dead`` adds nothing to the stream."""
    model = tiny_hybrid(LAYER_SPECS["full"])
    if dead is not None:
        layer = model.model.layers[dead]
        for projection in (layer.self_attn.o_proj, layer.mlp.down_proj):
            torch.nn.init.zeros_(projection.weight)
    return model


@torch.no_grad()
def spoken(model: HybridForCausalLM, rows: int = 4, length: int = 33, seed: int = 0) -> Tensor:
    """Tokens drawn from the model: of these its own scales, all 1, are the best there are."""
    numbers = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, 256, (rows, 1), generator=numbers)
    while ids.shape[1] < length:
        shares = model(ids).logits[:, -1].softmax(-1)
        ids = torch.cat([ids, torch.multinomial(shares, 1, generator=numbers)], dim=1)
    return ids


def subject(folder: Path, model: HybridForCausalLM, rows: Tensor, seed: int = 0, bar=None):
    return Subject(model, None, rows, (), folder, seed, bar or progress())


def all_ones(layers: int = LAYERS) -> dict[int, Tensor]:
    return {layer: torch.tensor(1.0) for layer in range(layers)}


def test_scales_of_one_change_nothing_and_a_layer_without_scale_is_removed() -> None:
    model, ids = model_without(), tiny_tokens(1, 300)  # more than one chunk of logits
    with torch.no_grad():
        whole = token_nll(model(ids).logits, ids).mean()
        torch.testing.assert_close(scaled_nll(model, ids, all_ones())[0], whole)
        for layer in range(LAYERS):
            others = {i: scale for i, scale in all_ones().items() if i != layer}
            zero = all_ones() | {layer: torch.tensor(0.0)}
            with converted(model, {layer: REMOVED}):
                removed = token_nll(model(ids).logits, ids).mean()
            assert abs(removed - whole) > 1e-3
            torch.testing.assert_close(scaled_nll(model, ids, others)[0], removed)
            torch.testing.assert_close(scaled_nll(model, ids, zero)[0], removed)


def test_gradients_are_those_of_finite_differences() -> None:
    model, ids = model_without().double(), tiny_tokens(1, 20)
    scales = torch.linspace(0.7, 1.2, LAYERS, dtype=torch.double)
    _, gradient = scaled_nll(model, ids, dict(enumerate(scales)))
    # logits are turned to fp32 for the loss: the step must be far above its rounding
    for layer in range(LAYERS):
        ends = []
        for step in (-1e-2, 1e-2):
            moved = scales.clone()
            moved[layer] += step
            ends.append(scaled_nll(model, ids, dict(enumerate(moved)))[0].item())
        assert gradient[layer].item() == pytest.approx((ends[1] - ends[0]) / 2e-2, rel=2e-2)


def plain_search(model: HybridForCausalLM, rows: list[Tensor], layers: int, steps: int, lr: float):
    """One optimiser all the way through, no recomputation, masking by removal from the sum."""
    scales = torch.ones(LAYERS, requires_grad=True)
    optimizer = torch.optim.AdamW([scales], lr=lr, weight_decay=0.0)
    masked: dict[int, float] = {}
    for step in range(layers * steps):
        ids = rows[step % len(rows)]
        hidden, placement = model.model.prepare(ids)
        penalty = torch.tensor(0.0)
        for layer, block in enumerate(model.model.layers):
            if layer not in masked:
                hidden = hidden + scales[layer] * (block(hidden, placement) - hidden)
                penalty = penalty + 5e-3 * scales[layer].abs()
        loss = token_nll(model.head(hidden), ids).mean() + penalty
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if (step + 1) % steps == 0:
            left = [layer for layer in range(LAYERS) if layer not in masked]
            layer = min(left, key=lambda i: abs(scales[i].item()))
            masked[layer] = scales[layer].item()
    rest = [layer for layer in range(LAYERS) if layer not in masked]
    order = [*masked, *sorted(rest, key=lambda i: abs(scales[i].item()))]
    return order, [masked.get(i, scales[i].item()) for i in range(LAYERS)]


@pytest.mark.parametrize(("layers", "steps"), [(1, 5), (3, 3), (4, 2)])
def test_equals_a_plain_training_loop(tmp_path: Path, layers: int, steps: int) -> None:
    model = model_without()
    rows = spoken(model)
    options = TrspScale(layers=layers, steps_per_layer=steps, learning_rate=0.03)
    found = options.run(subject(tmp_path, model, rows, seed=2))
    shuffled = torch.randperm(4, generator=torch.Generator().manual_seed(2))
    order, scales = plain_search(model, [rows[i][None] for i in shuffled], layers, steps, 0.03)
    by_place = sorted(range(LAYERS), key=lambda i: found.scores[i]["trsp_order"])
    assert by_place == order
    assert sorted(s["trsp_order"] for s in found.scores) == [0, 1, 2, 3]
    for scores, scale in zip(found.scores, scales, strict=True):
        assert scores["trsp_scale"] == pytest.approx(scale, abs=1e-5)


@pytest.mark.parametrize("dead", range(LAYERS))
@pytest.mark.parametrize("seed", [0, 1])
def test_a_layer_that_does_nothing_is_masked_first(tmp_path: Path, dead: int, seed: int) -> None:
    model = model_without(dead)
    found = TrspScale().run(subject(tmp_path, model, spoken(model, length=40, seed=seed), seed))
    assert found.scores[dead]["trsp_order"] == 0
    # the penalty alone moves it, down by the learning rate at each of the eight steps
    assert found.scores[dead]["trsp_scale"] == pytest.approx(1 - 8 * 0.01, abs=1e-4)


class Killed(BaseException):
    pass


class KillingBar(type(progress())):
    """Ends the process, so to speak, after so many steps."""

    left = 0

    def update(self, *args, **kwargs) -> None:
        self.left -= 1
        if self.left == 0:
            raise Killed


@pytest.mark.parametrize("steps_done", [1, 4, 8])
def test_after_a_kill_the_result_is_the_same(tmp_path: Path, steps_done: int) -> None:
    model = model_without()
    rows = spoken(model)
    options = TrspScale(layers=3, steps_per_layer=3)
    whole = options.run(subject(tmp_path / "whole", model, rows))
    bar = KillingBar()
    bar.left = steps_done
    with pytest.raises(Killed):
        options.run(subject(tmp_path / "killed", model, rows, bar=bar))
    assert len(list((tmp_path / "killed").glob("*"))) == (1 if steps_done > 3 else 0)
    said: list[str] = []
    again = Subject(model, None, rows, (), tmp_path / "killed", 0, progress(), said.append)
    assert options.run(again) == whole
    assert len(said) == 3 - (steps_done - 1) // 3, "only what was not masked yet"


def test_what_is_done_is_not_done_again(tmp_path: Path) -> None:
    model = model_without()
    rows = spoken(model)
    options = TrspScale(layers=1, steps_per_layer=2)
    options.run(subject(tmp_path, model, rows))
    (file,) = tmp_path.glob("trsp_scale-*.json")
    state = json.loads(file.read_text())
    state["scales"][2] = -0.125  # training would not give this
    file.write_text(json.dumps(state))
    assert options.run(subject(tmp_path, model, rows)).scores[2]["trsp_scale"] == -0.125
    options.model_copy(update={"penalty": 0.1}).run(subject(tmp_path, model, rows))
    options.run(subject(tmp_path, model, rows, seed=1))
    assert len(list(tmp_path.glob("*"))) == 3, "other options and seeds do not find this state"


def test_the_model_is_left_as_it_was_and_may_have_been_profiled_before(tmp_path: Path) -> None:
    model = model_without()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trainable = [p.requires_grad for p in model.parameters()]
    profilers = [TrspScale(layers=1, steps_per_layer=1), BlockInfluence()]
    found = run_profilers(profilers, subject(tmp_path, model, tiny_tokens(3, 24)))
    assert [set(one.scores[0]) for one in found] == [
        {"block_influence"},
        {"trsp_order", "trsp_scale"},
    ]
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert [p.requires_grad for p in model.parameters()] == trainable
    assert all(p.grad is None for p in model.parameters())


def test_a_model_in_bf16_learns_its_scales_in_fp32(tmp_path: Path) -> None:
    model = model_without(1)
    rows = spoken(model, length=40)
    found = TrspScale(learning_rate=1e-3).run(subject(tmp_path, model.bfloat16(), rows))
    # bf16 has nothing between 0.9922 and 0.9961
    assert found.scores[1]["trsp_scale"] == pytest.approx(1 - 8e-3, abs=1e-5)


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    model = model_without()
    with pytest.raises(InputError, match=says("4 layers", "5 layers")):
        TrspScale(layers=5).run(subject(tmp_path, model, tiny_tokens(2, 24)))
    with pytest.raises(InputError, match="token"):
        TrspScale().run(subject(tmp_path, model, tiny_tokens(2, 1)))
    torch.nn.init.constant_(model.model.layers[2].mlp.down_proj.weight, torch.inf)
    with pytest.raises(StepError, match="not finite"):
        TrspScale().run(subject(tmp_path, model, tiny_tokens(2, 24)))
