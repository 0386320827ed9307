"""What `doctor` says of the kernels."""

import pytest

from layerwright.flows.command_line.doctor import examine
from layerwright.tasks.home import Home


def kernels(home) -> tuple[str, str]:
    found = next(f for f in examine(Home(home), None).checks if f.check == "kernels")
    return found.state, found.finding


def test_the_path_that_runs_is_named(tmp_path, monkeypatch):
    monkeypatch.delenv("LAYERWRIGHT_KERNELS", raising=False)
    state, text = kernels(tmp_path)
    assert state == "ok"
    assert text.startswith(("blockwise (torch) on cpu: ", "triton "))


@pytest.mark.parametrize(
    ("wanted", "interpreted", "state", "text"),
    [
        ("reference", "0", "note", "reference on cpu, as LAYERWRIGHT_KERNELS says"),
        ("triton", "0", "broken", "LAYERWRIGHT_KERNELS=triton, but on cpu"),
        ("fastest", "0", "broken", "LAYERWRIGHT_KERNELS='fastest' is not one of"),
    ],
)
def test_what_the_environment_asks_for(tmp_path, monkeypatch, wanted, interpreted, state, text):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setenv("LAYERWRIGHT_KERNELS", wanted)
    monkeypatch.setenv("TRITON_INTERPRET", interpreted)
    found = kernels(tmp_path)
    assert found[0] == state
    assert found[1].startswith(text)
