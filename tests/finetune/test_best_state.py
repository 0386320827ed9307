"""The best state, not the last, is what a stage hands on; a killed training still has it."""

import pytest
import torch
from finetune.healing_case import HELD_OUT, OPTIONS, STAGE, TWO_STAGES, HealingCase
from tiny_checkpoint import byte_tokenizer

from layerwright.tasks.models.loading import load_checkpoint

# the held-out rows are read best at step 11; a snapshot after each step
OVERFITS = OPTIONS.model_copy(
    update={
        "stages": (
            STAGE.model_copy(
                update={
                    "steps": 20,
                    "learning_rate": 7e-3,
                    "schedule": "constant",
                    "warmup_steps": 0,
                }
            ),
        ),
        "validation": TWO_STAGES.validation.model_copy(update={"every_tokens": 64}),
        "checkpoint_every": 1,
    }
)


def held_out_nll(case, report):
    ids = byte_tokenizer()(HELD_OUT, return_tensors="pt").input_ids[0, :96].view(3, 32)
    model = load_checkpoint(case.store.open_tree(report.checkpoint.sha256))
    with torch.no_grad():
        return float(model(ids, labels=ids).loss)


def test_the_best_state_is_merged_and_not_the_last(tmp_path):
    case = HealingCase(tmp_path)
    report = case.heal(OVERFITS)
    assert 0 < report.best_step < report.steps == 20
    best, last = report.validation[report.best_step], report.validation[-1]
    assert (best.step, last.step) == (report.best_step, 20)
    assert abs(best.nll - last.nll) > 1e-3
    assert held_out_nll(case, report) == pytest.approx(best.nll, rel=1e-5)


def test_killed_after_its_best_state_it_still_hands_it_on(tmp_path):
    whole = HealingCase(tmp_path / "whole")
    expected = whole.heal(OVERFITS)
    case, steps = HealingCase(tmp_path / "killed"), []

    def dies(step, metrics):
        if step == expected.steps:
            raise KeyboardInterrupt
        steps.append(step)

    with pytest.raises(KeyboardInterrupt):
        case.heal(OVERFITS, sink=dies)
    assert max(steps) > expected.best_step
    report = case.heal(OVERFITS)
    assert "resumes from step" in " ".join(case.log)
    assert report.best_step == expected.best_step
    assert report.checkpoint.sha256 == expected.checkpoint.sha256
