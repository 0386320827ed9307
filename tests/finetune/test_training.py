"""The loop learns, keeps its teacher, resumes exactly and stops at what is not finite."""

import io
import sys

import pytest
import torch
from finetune.unpadded_rows import unpadded_rows
from safetensors.torch import load_file
from tiny import LAYER_SPECS, tiny_hybrid, tiny_tokens
from tolerance import SAME_MODEL, relative_rms

from layerwright.tasks.contracts.base import Spec
from layerwright.tasks.errors import InputError, StepError
from layerwright.tasks.finetune.adapters import apply_weights
from layerwright.tasks.finetune.snapshot import Snapshots
from layerwright.tasks.finetune.team import Team
from layerwright.tasks.finetune.training import Training
from layerwright.tasks.hybrid.mixers.gated_recurrence import GatedRecurrence
from layerwright.tasks.recipe.training import AdapterOptions, HealingStage, WindowDropout

ROWS = unpadded_rows(tiny_tokens(3, 24))
BOTH = (Spec(name="logit_kl"), Spec(name="next_token", weight=0.1))


def stage(**changed):
    fields = {"objectives": BOTH, "steps": 12, "learning_rate": 1e-2}
    return HealingStage(**fields | {"adapter": AdapterOptions(rank=4, alpha=8)} | changed)


def training(folder, *, rows=ROWS, spec="streaming", run="run", hook=None, **fields):
    def load_student():
        model = tiny_hybrid(LAYER_SPECS[spec])
        if hook:
            model.model.norm.register_forward_hook(hook)
        return model

    base = tiny_hybrid(LAYER_SPECS["full"]).requires_grad_(False)
    fields = {"snapshots": Snapshots(folder, run), "checkpoint_every": 5} | fields
    return Training(load_student=load_student, base=base, rows=rows, **fields)


def interrupt_after(calls):
    """A hook that raises KeyboardInterrupt from within the step after that many forward passes."""
    left = [calls]

    def hook(*_):
        if left[0] == 0:
            raise KeyboardInterrupt
        left[0] -= 1

    return hook


def test_the_loss_falls_on_a_text_that_can_be_memorised(tmp_path):
    one = training(tmp_path, rows=ROWS[:1])
    points = one.run([stage(steps=30, objectives=(Spec(name="next_token"),))]).points
    assert points[-1].loss < 0.8 * points[0].loss
    assert [point.step for point in points] == list(range(1, 31))
    assert [point.tokens for point in points] == [24 * step for step in range(1, 31)]


def test_kl_falls_towards_the_teacher(tmp_path):
    one = training(tmp_path, rows=ROWS[:1])
    points = one.run([stage(steps=30, objectives=(Spec(name="logit_kl"),))]).points
    assert points[-1].values["logit_kl"] < 0.6 * points[0].values["logit_kl"]
    assert points[0].loss == pytest.approx(points[0].values["logit_kl"])


def test_the_teacher_stays_as_it_is_and_what_was_learnt_is_handed_on(tmp_path):
    one = training(tmp_path)
    before = {name: p.clone() for name, p in one.base.named_parameters()}
    state = one.run([stage(), stage(adapter=AdapterOptions(kind="full"), learning_rate=1e-3)])
    assert all(torch.equal(p, before[name]) for name, p in one.base.named_parameters())
    student = one.load_student()
    for index in range(2):
        apply_weights(student, one.snapshots.weights(index))
    with torch.no_grad():
        losses = [
            sum(float(model(row[None], labels=row[None]).loss) for row in ROWS.ids) / 3
            for model in (one.load_student(), student)
        ]
    assert losses[1] < losses[0]
    second = [p for p in state.points if p.stage == 1]
    assert second[0].loss < state.points[0].loss


@pytest.mark.parametrize(
    ("spec", "chosen"),
    [
        ("gla", {"window_dropout": WindowDropout()}),
        ("linear", {"parts": ("linear",), "parts_learning_rate": 1e-4}),
    ],
)
def test_a_resumed_run_equals_one_that_was_never_interrupted(tmp_path, spec, chosen):
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    whole.mkdir(), resumed.mkdir()
    stages = [stage(rows_per_step=2, **chosen)]
    expected = training(whole, spec=spec).run(stages)
    with pytest.raises(KeyboardInterrupt):
        training(resumed, spec=spec, hook=interrupt_after(17)).run(stages)
    log = []
    state = training(resumed, spec=spec, log=log.append).run(stages)
    assert log[0] == "finetune resumes from step 5 of 12"
    assert state.points == expected.points
    ours, theirs = (load_file(folder / "stage-1.safetensors") for folder in (resumed, whole))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_parts_learn_at_a_rate_of_their_own(tmp_path, kind):
    one = training(tmp_path, spec="linear")
    adapter = AdapterOptions(kind=kind, rank=4, alpha=8)
    one.run([stage(steps=1, adapter=adapter, parts=("linear",), parts_learning_rate=1e-5)])
    before = dict(one.load_student().named_parameters())
    moved = {
        name: float((after - before[name]).abs().max())
        for name, after in one.snapshots.weights(0).items()
    }
    parts = [change for name, change in moved.items() if ".linear." in name]
    others = [change for name, change in moved.items() if ".linear." not in name]
    assert 0.9e-5 < max(parts) < 1.1e-5, "a step of AdamW is the rate, at first"
    assert max(others) > 1e-3


def test_another_runs_snapshot_is_left_aside(tmp_path):
    training(tmp_path, run="another").run([stage()])
    log = []
    state = training(tmp_path, run="this", log=log.append).run([stage()])
    assert not any("resumes" in line for line in log)
    assert len(state.points) == 12


def test_a_loss_that_is_not_finite_names_its_step_and_keeps_the_snapshot(tmp_path):
    calls = []

    def poison(_module, _inputs, output):
        calls.append(output)
        return output * float("nan") if len(calls) == 8 else output

    with pytest.raises(StepError, match="finetune step 8: loss nan, logit_kl nan"):
        training(tmp_path, hook=poison).run([stage()])
    log = []
    training(tmp_path, log=log.append).run([stage()])
    assert log[0] == "finetune resumes from step 5 of 12"


def test_progress_is_logged_where_there_is_no_terminal(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    log = []
    training(tmp_path, log=log.append).run([stage()])
    assert [line.split(":")[0] for line in log] == [
        "finetune step 10 of 12",
        "finetune step 12 of 12",
    ]
    assert "tokens/s" in log[0]


def test_every_steps_metrics_go_to_the_sink(tmp_path):
    seen = {}
    state = training(tmp_path, sink=lambda step, metrics: seen.update({step: metrics})).run(
        [stage(steps=3)]
    )
    assert list(seen) == [1, 2, 3]
    assert seen[2]["logit_kl"] == state.points[1].values["logit_kl"]
    assert set(seen[3]) == {"loss", "logit_kl", "next_token", "learning_rate", "tokens"}


@pytest.mark.parametrize("name", ["hidden_state", "logit_kl", "attention_output"])
def test_gradient_checkpointing_does_not_change_the_training(tmp_path, name):
    plain, saved = tmp_path / "plain", tmp_path / "saved"
    plain.mkdir(), saved.mkdir()
    chosen = {"objectives": (Spec(name=name),), "steps": 3, "window_dropout": WindowDropout()}
    expected = training(plain, spec="gla").run([stage(**chosen)])
    state = training(saved, spec="gla").run([stage(**chosen, gradient_checkpointing=True)])
    assert [p.loss for p in state.points] == pytest.approx([p.loss for p in expected.points])


@pytest.mark.parametrize("name", LAYER_SPECS)
def test_bf16_arithmetic_stays_near_for_every_kind_of_layer(tmp_path, name):
    both = []
    for compute in (None, torch.bfloat16):
        folder = tmp_path / str(compute)
        folder.mkdir()
        one = training(folder, spec=name, compute=lambda stage, compute=compute: compute)
        chosen = stage(steps=2, rows_per_step=3, adapter=AdapterOptions(kind="full"))
        both.append([p.values["next_token"] for p in one.run([chosen]).points])
    near = relative_rms(torch.tensor(both[1]), torch.tensor(both[0]))
    assert 0 < near <= SAME_MODEL[torch.bfloat16]


def test_windows_are_switched_off_in_some_rows_and_back_on_afterwards(tmp_path):
    seen = []

    def watch(model):
        mixer = next(m for m in model.modules() if isinstance(m, GatedRecurrence))
        mixer.register_forward_hook(lambda m, *_: seen.append(m.shown["window"]))
        return model

    one = training(tmp_path, spec="gla")
    load = one.load_student
    object.__setattr__(one, "load_student", lambda: watch(load()))
    dropped = stage(steps=4, rows_per_step=3, window_dropout=WindowDropout(start=1.0, end=0.0))
    one.run([dropped])
    assert [float(share) for share in seen[:3]] == [0.0, 0.0, 0.0]
    assert seen[-3:] == [1.0, 1.0, 1.0]


def test_rows_that_processes_cannot_share_are_refused(tmp_path):
    with pytest.raises(InputError) as caught:
        training(tmp_path, team=Team(size=2)).run([stage(rows_per_step=3)])
    assert caught.value.where == "finetune.stages.0.rows_per_step"
