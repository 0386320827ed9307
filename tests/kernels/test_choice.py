"""Which implementation runs, who may say so, and who is told."""

import sys

import pytest
import torch
from facts import says

from layerwright.kernels.choice import choose_implementation, implementations_run, triton_obstacle

THREE = {name: name.upper for name in ("reference", "blockwise", "triton")}
TWO = {name: name.upper for name in ("reference", "blockwise")}
HALF = torch.zeros(1, dtype=torch.bfloat16)


def choice(offered=THREE, tensor=HALF, channels=64) -> str:
    return choose_implementation("some_operator", offered, tensor, channels)().lower()


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    monkeypatch.delenv("LAYERWRIGHT_KERNELS", raising=False)
    monkeypatch.setenv("TRITON_INTERPRET", "1")


def test_torch_runs_on_a_cpu_by_default():
    assert choice() == "blockwise"


@pytest.mark.parametrize("name", THREE)
def test_the_environment_decides(monkeypatch, name):
    monkeypatch.setenv("LAYERWRIGHT_KERNELS", name)
    assert choice() == name
    assert choice(TWO) == (name if name in TWO else "blockwise")


def test_unknown_names_are_refused(monkeypatch):
    monkeypatch.setenv("LAYERWRIGHT_KERNELS", "fastest")
    with pytest.raises(ValueError, match="'fastest'"):
        choice(TWO)


@pytest.mark.parametrize(
    ("interpreted", "tensor", "channels", "reason"),
    [
        ("0", HALF, 64, ("cpu", "interpreter")),
        ("1", HALF.double(), 64, ("float64",)),
        ("1", HALF, 257, ("257", "256")),
    ],
)
def test_triton_is_refused_where_it_cannot_run(monkeypatch, interpreted, tensor, channels, reason):
    monkeypatch.setenv("LAYERWRIGHT_KERNELS", "triton")
    monkeypatch.setenv("TRITON_INTERPRET", interpreted)
    with pytest.raises(ValueError, match=says("some_operator", *reason)):
        choice(THREE, tensor, channels)


def test_the_interpreter_is_not_for_a_gpu():
    assert "interpreter" in triton_obstacle("cuda")


def test_without_triton_torch_runs(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    assert triton_obstacle("cuda") == "the package triton is not installed"
    assert choice() == "blockwise"


def test_what_ran_is_recorded():
    choice()
    with implementations_run() as outer:
        choice()
        with implementations_run() as inner:
            pass
    choice()
    assert outer == {"some_operator": {"blockwise"}}
    assert inner == {}
