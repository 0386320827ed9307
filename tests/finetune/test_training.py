"""The loop learns, keeps its teacher, resumes exactly and stops at what is not finite."""

import io
import sys

import pytest
import torch
from finetune.tiny_hybrid import FULL, STREAMING, tiny_hybrid
from safetensors.torch import load_file
from tiny import tiny_tokens

from tasks.errors import StepError
from tasks.finetune import lora
from tasks.finetune.training import accumulate_gradients, train
from tasks.recipe import FinetuneOptions

ROWS = tiny_tokens(3, 24)


def options(**changed):
    fields = {"text": "t", "steps": 12, "learning_rate": 2e-2, "row_tokens": 24, "rank": 4}
    return FinetuneOptions(**fields | {"alpha": 8, "checkpoint_every": 5} | changed)


def student(**changed):
    model = tiny_hybrid(STREAMING, FULL)
    chosen = options(**changed)
    lora.attach(model, rank=chosen.rank, alpha=chosen.alpha, targets=chosen.targets, seed=0)
    return model


def run(tmp_path, model=None, *, rows=ROWS, stop_after=None, name="run", log=None, **changed):
    """Train; ``stop_after`` raises KeyboardInterrupt from within the step after that one."""
    teacher = tiny_hybrid()
    if stop_after is not None:
        teacher.model.register_forward_pre_hook(Interrupt(stop_after))
    return train(
        model or student(**changed),
        teacher,
        rows,
        options(**changed),
        seed=0,
        snapshot=tmp_path / "training.safetensors",
        run=name,
        log=log or (lambda message: None),
    )


class Interrupt:
    def __init__(self, calls):
        self.left = calls

    def __call__(self, *_):
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1


def test_the_loss_falls_on_a_text_that_can_be_memorised(tmp_path):
    points = run(tmp_path, steps=30, rows=ROWS[:1], kl_weight=0.0, next_token_weight=1.0).points
    assert points[-1].loss < 0.8 * points[0].loss
    assert [point.step for point in points] == list(range(1, 31))
    assert [point.tokens for point in points] == [24 * step for step in range(1, 31)]


def test_kl_falls_towards_the_teacher(tmp_path):
    points = run(tmp_path, steps=30, rows=ROWS[:1], next_token_weight=0.0).points
    assert points[-1].kl_nats < 0.6 * points[0].kl_nats
    assert points[0].loss == pytest.approx(points[0].kl_nats)


def test_the_kl_to_itself_is_zero_and_gives_no_gradient():
    model = tiny_hybrid()
    lora.attach(model, rank=2, alpha=2, targets=("q_proj",), seed=0)
    chosen = options(next_token_weight=0.0)
    loss, _, kl = accumulate_gradients(model, tiny_hybrid(), ROWS, chosen)
    assert loss == kl == 0.0
    assert all(float(p.grad.abs().max()) < 1e-6 for p in lora.trained(model).values())


def test_gradients_of_several_rows_are_those_of_their_mean():
    together, apart = student(), student()
    teacher = tiny_hybrid()
    loss, nll, kl = accumulate_gradients(together, teacher, ROWS, options())
    single = [accumulate_gradients(apart, teacher, row, options()) for row in ROWS.split(1)]
    assert (loss, nll, kl) == pytest.approx(
        [sum(values) / 3 for values in zip(*single, strict=True)]
    )
    for p, q in zip(lora.trained(together).values(), lora.trained(apart).values(), strict=True):
        torch.testing.assert_close(p.grad, q.grad / 3, rtol=1e-4, atol=1e-7)


def test_the_loss_is_that_of_the_models_own_logits():
    model, teacher = student(), tiny_hybrid()
    loss, nll, kl = accumulate_gradients(model, teacher, ROWS[:1], options(next_token_weight=0.5))
    with torch.no_grad():
        expected_nll = float(model(ROWS[:1], labels=ROWS[:1]).loss)
        log_q, log_p = (m(ROWS[:1]).logits[0, :-1].log_softmax(-1) for m in (model, teacher))
    assert nll == pytest.approx(expected_nll, rel=1e-5)
    assert kl == pytest.approx(float((log_p.exp() * (log_p - log_q)).sum(-1).mean()), rel=1e-4)
    assert loss == pytest.approx(0.5 * nll + kl)


def test_the_teacher_and_the_frozen_weights_stay_as_they_are(tmp_path):
    model, teacher = student(), tiny_hybrid()
    adapters = set(lora.trained(model))
    before = {n: p.clone() for n, p in model.named_parameters()}
    train(model, teacher, ROWS, options(), seed=0, snapshot=tmp_path / "s", run="r", log=print)
    untrained = tiny_hybrid().state_dict()
    assert all(torch.equal(p, untrained[name]) for name, p in teacher.state_dict().items())
    changed = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert changed == adapters


def test_a_resumed_run_equals_one_that_was_never_interrupted(tmp_path):
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    whole.mkdir(), resumed.mkdir()
    expected = run(whole)
    with pytest.raises(KeyboardInterrupt):
        run(resumed, stop_after=8)
    log = []
    state = run(resumed, log=log.append)
    assert log[0] == "finetune goes on from step 5 of 12"
    assert state.points == expected.points
    ours, theirs = (load_file(folder / "training.safetensors") for folder in (resumed, whole))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_a_finished_run_is_not_trained_again(tmp_path):
    expected = run(tmp_path)
    state = run(tmp_path, stop_after=0)
    assert (state.points, state.seconds) == (expected.points, expected.seconds)


def test_another_runs_snapshot_is_left_aside(tmp_path):
    run(tmp_path, name="another")
    log = []
    run(tmp_path, name="this", log=log.append)
    assert not any("goes on" in line for line in log)


def test_a_loss_that_is_not_finite_names_its_step_and_keeps_the_snapshot(tmp_path):
    model, calls = student(), []

    def poison(_module, _inputs, output):
        calls.append(output)
        return output * float("nan") if len(calls) == 8 else output

    model.model.norm.register_forward_hook(poison)
    with pytest.raises(StepError, match="finetune step 8: loss nan"):
        run(tmp_path, model)
    log = []
    run(tmp_path, log=log.append)
    assert log[0] == "finetune goes on from step 5 of 12"


def test_progress_is_logged_where_there_is_no_terminal(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    log = []
    run(tmp_path, log=log.append)
    assert [line.split(":")[0] for line in log] == [
        "finetune step 10 of 12",
        "finetune step 12 of 12",
    ]
    assert "tokens/s" in log[0]
