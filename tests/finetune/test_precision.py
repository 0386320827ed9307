"""The arithmetic of a training, and what is told where the processor has it not."""

import pytest
import torch
from finetune.healing_case import OPTIONS, STAGE, HealingCase

from layerwright.tasks.finetune import precision
from layerwright.tasks.finetune.precision import (
    EMULATED,
    bfloat16_slowdown,
    compute_dtype,
    emulation,
    loaded_dtype,
)

WIDE, NARROW, AUTO = (
    STAGE.model_copy(update={"precision": it}) for it in ("float32", "bfloat16", "auto")
)
HALF = torch.bfloat16


@pytest.mark.parametrize(
    ("device", "stored", "stage", "expected"),
    [
        ("cpu", HALF, AUTO, None),
        ("cuda", HALF, AUTO, HALF),
        ("cuda", torch.float32, AUTO, None),
        ("cuda", HALF, WIDE, None),
        ("cpu", torch.float32, NARROW, HALF),
    ],
)
def test_autocast_is_asked_for_or_where_it_pays(device, stored, stage, expected):
    assert compute_dtype(device, stored, stage) == expected


def test_weights_are_widened_on_the_cpu_and_where_a_stage_is_wide():
    assert loaded_dtype("cpu", (NARROW,)) == torch.float32
    assert loaded_dtype("cuda", (NARROW, WIDE)) == torch.float32
    assert loaded_dtype("cuda", (NARROW, AUTO)) is None


def test_only_an_emulation_is_told(monkeypatch):
    monkeypatch.setattr(precision, "bfloat16_slowdown", lambda: EMULATED * 0.99)
    assert emulation("cpu", (NARROW,)) is None
    monkeypatch.setattr(precision, "bfloat16_slowdown", lambda: 45.7)
    line = emulation("cpu", (NARROW,))
    assert "46 times" in line
    assert "precision: float32" in line


def test_only_bfloat16_on_a_cpu_is_measured():
    assert emulation("cuda", (NARROW,)) is None
    assert emulation("cpu", (WIDE, AUTO)) is None


@pytest.mark.parametrize(("slowdown", "lines"), [(1.0, 0), (45.7, 1)])
def test_a_training_in_bfloat16_tells_what_the_processor_is(tmp_path, monkeypatch, slowdown, lines):
    assert bfloat16_slowdown() > 0
    monkeypatch.setattr(precision, "bfloat16_slowdown", lambda: slowdown)  # of another processor
    case = HealingCase(tmp_path)
    case.heal(OPTIONS.model_copy(update={"stages": (NARROW.model_copy(update={"steps": 3}),)}))
    assert sum("emulates bfloat16" in line for line in case.log) == lines
