"""Objectives against their formulas, and their combination against the sum."""

from itertools import pairwise

import pytest
import torch
from finetune.unpadded_rows import unpadded_rows
from tiny import LAYER_SPECS, tiny_hybrid, tiny_tokens
from tolerance import SAME_MODEL, relative_rms

from layerwright.tasks.components import build, discover
from layerwright.tasks.contracts.base import Spec
from layerwright.tasks.finetune.adapters import attach, trainable
from layerwright.tasks.finetune.losses import StageLoss
from layerwright.tasks.finetune.objectives.base import Objective
from layerwright.tasks.finetune.rows import Rows
from layerwright.tasks.recipe.training import AdapterOptions

ROWS = unpadded_rows(tiny_tokens(3, 20))
CONVERTED = (0, 1, 3)


def base():
    return tiny_hybrid(LAYER_SPECS["full"]).requires_grad_(False)


def make(*specs, spec="streaming", teacher=True):
    student = tiny_hybrid(LAYER_SPECS[spec])
    attach(student, AdapterOptions(kind="full"), seed=0)
    objectives = [build(Objective, Spec(**s)) for s in specs]
    head = student.get_output_embeddings().weight.detach()
    mixed = [i for i in CONVERTED if student.model.layers[i].self_attn is not None]
    return StageLoss(student, base() if teacher else None, objectives, head=head, converted=mixed)


def gradients(loss):
    named = trainable(loss.student).items()
    return {name: p.grad.clone() for name, p in named if p.grad is not None}


def streams(model, ids):
    hidden, placement = model.model.prepare(ids)
    found = [hidden]
    for layer in model.model.layers:
        found.append(layer(found[-1], placement))
    return found


def test_every_objective_is_found_with_its_options():
    assert list(discover(Objective)) == [
        "attention_output", "cosine", "hidden_state", "layer_change", "logit_kl", "next_token",
    ]  # fmt: skip


def test_attention_output_is_each_layers_own_from_the_bases_input():
    loss = make({"name": "attention_output"})
    means = loss.accumulate(ROWS, 1)
    found = gradients(loss)
    teacher, student = base(), make({"name": "attention_output"}).student
    hidden, placement = teacher.model.prepare(ROWS.ids)
    total = 0.0
    for index, layer in enumerate(teacher.model.layers):
        if index in CONVERTED:
            wanted = layer.self_attn(layer.input_layernorm(hidden), placement)
            ours = student.model.layers[index]
            output = ours.self_attn(ours.input_layernorm(hidden), placement)
            missed = (output - wanted).square().sum((1, 2)) / wanted.square().sum((1, 2))
            total = total + missed.mean() / 3
        hidden = layer(hidden, placement)
    total.backward()
    assert means.loss == pytest.approx(float(total.detach()), rel=1e-5)
    expected = {n: p.grad for n, p in trainable(student).items() if p.grad is not None}
    assert set(found) == set(expected)
    assert all("self_attn" in name or "input_layernorm" in name for name in found)
    for name, gradient in found.items():
        assert relative_rms(gradient, expected[name]) <= SAME_MODEL[torch.float32], name


def test_hidden_state_compares_streams_after_every_layer():
    loss = make({"name": "hidden_state"})
    value = loss.measure(ROWS).values["hidden_state"]
    ours, theirs = streams(loss.student, ROWS.ids), streams(loss.base, ROWS.ids)
    expected = torch.stack(
        [
            ((a - b).square().sum(-1) / b.square().sum(-1)).mean()
            for a, b in zip(ours[1:], theirs[1:], strict=True)
        ]
    ).mean()
    assert value == pytest.approx(float(expected.detach()), rel=1e-5)


def test_hidden_state_leaves_out_the_stream_in_front_of_a_removed_layer():
    student, teacher = tiny_hybrid(LAYER_SPECS["removed"], (1, 2)), base()
    objective = build(Objective, Spec(name="hidden_state"))
    head = student.get_output_embeddings().weight.detach()
    value = StageLoss(student, teacher, [objective], head=head).measure(ROWS).loss
    ours, theirs = streams(student, ROWS.ids), streams(teacher, ROWS.ids)
    expected = torch.stack(
        [
            ((ours[i] - theirs[i]).square().sum(-1) / theirs[i].square().sum(-1)).mean()
            for i in (3, 4)  # 1 and 2 stand in front of layers 1 and 2
        ]
    ).mean()
    assert value == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_layer_change_is_the_mean_size_of_what_layers_add(norm):
    loss = make({"name": "layer_change", "layers": [1, 3], "norm": norm}, teacher=False)
    found = streams(loss.student, ROWS.ids)
    changes = [(found[i + 1] - found[i]).detach() for i in (1, 3)]
    if norm == "l2":
        expected = sum(c.square().mean(-1).sqrt().mean() for c in changes)
    else:
        expected = sum(c.abs().mean() for c in changes)
    assert loss.measure(ROWS).loss == pytest.approx(float(expected), rel=1e-5)


def test_cosine_is_summed_over_the_layers_and_has_the_papers_weight():
    loss = make({"name": "cosine"}, teacher=False)
    found = streams(loss.student, ROWS.ids)
    expected = sum((1 - torch.cosine_similarity(a, b, dim=-1)).mean() for a, b in pairwise(found))
    means = loss.measure(ROWS)
    assert means.values["cosine"] == pytest.approx(float(expected), rel=1e-5)
    assert means.loss == pytest.approx(0.5 * float(expected), rel=1e-5)


def test_a_combination_has_the_sum_of_the_gradients():
    parts = [
        {"name": "logit_kl", "weight": 1.0},
        {"name": "next_token", "weight": 0.3},
        {"name": "attention_output", "weight": 2.0},
        {"name": "hidden_state", "weight": 0.5},
        {"name": "cosine", "weight": 0.1},
    ]
    together = make(*parts)
    means = together.accumulate(ROWS, 2)
    apart = [make(part) for part in parts]
    singles = [loss.accumulate(ROWS, 2) for loss in apart]
    assert means.loss == pytest.approx(sum(single.loss for single in singles), rel=1e-5)
    found, expected = gradients(together), [gradients(loss) for loss in apart]
    for name, gradient in found.items():
        total = sum(one[name] for one in expected if name in one)
        assert relative_rms(gradient, total) <= SAME_MODEL[torch.float32], name


def test_the_base_is_not_run_for_what_needs_none():
    loss = make({"name": "next_token"}, {"name": "cosine"})
    loss.base.model.register_forward_pre_hook(lambda *_: pytest.fail("the base was run"))
    loss.accumulate(ROWS, 1)


@pytest.mark.parametrize("at_once", [1, 2, 3])
@pytest.mark.parametrize("name", ["logit_kl", "next_token", "attention_output", "hidden_state"])
def test_batches_and_padding_do_not_change_the_loss(name, at_once):
    padded = tiny_tokens(3, 20)
    real = torch.ones_like(padded, dtype=torch.bool)
    real[1, 11:] = False
    counted = real.clone()
    counted[:, 0] = False
    counted[0, 4:9] = False
    rows = Rows(padded, counted, real)
    garbage = Rows(torch.where(real, padded, 7), counted, real)
    one, other = make({"name": name}), make({"name": name})
    first, second = one.accumulate(rows, 1), other.accumulate(garbage, at_once)
    assert first.loss == pytest.approx(second.loss, rel=1e-5)
    expected = gradients(one)
    for parameter, gradient in gradients(other).items():
        assert relative_rms(gradient, expected[parameter]) <= SAME_MODEL[torch.float32], parameter


def test_tokens_that_do_not_count_are_left_out():
    ids = tiny_tokens(1, 20)
    counted = torch.zeros_like(ids, dtype=torch.bool)
    counted[0, [5, 6, 13]] = True
    loss = make({"name": "next_token"})
    value = loss.measure(Rows(ids, counted, torch.ones_like(counted))).nll
    with torch.no_grad():
        log_q = loss.student(ids).logits[0].log_softmax(-1)
    expected = -sum(float(log_q[t - 1, ids[0, t]]) for t in (5, 6, 13)) / 3
    assert value == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", ["logit_kl", "hidden_state", "attention_output"])
def test_a_model_is_no_distance_from_itself(name):
    loss = make({"name": name}, spec="full")
    assert loss.measure(ROWS).loss == pytest.approx(0.0, abs=1e-12)
