"""Triton's kernels under test: on the CPU in its interpreter, on a GPU with `make test-gpu`."""

import os

import pytest
import torch


@pytest.fixture(scope="session")
def device() -> str:
    return os.environ.get("LAYERWRIGHT_TEST_DEVICE", "cpu")


@pytest.fixture
def fused(monkeypatch, device):
    """Operators run by Triton, and everything that they allocate is NaN until they write it."""
    from kernels.choice import fused_obstacle

    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    if obstacle := fused_obstacle(device):
        pytest.skip(obstacle)
    monkeypatch.setenv("LAYERWRIGHT_KERNELS", "triton")
    allocate = torch.empty

    def poisoned(*sizes, **options):
        found = allocate(*sizes, **options)
        return found.fill_(torch.nan) if found.is_floating_point() else found

    monkeypatch.setattr(torch, "empty", poisoned)


@pytest.fixture(params=["blockwise", "triton"])
def both(request, device, monkeypatch):
    """Each implementation in turn."""
    if request.param == "triton":
        request.getfixturevalue("fused")
    else:
        monkeypatch.setenv("LAYERWRIGHT_KERNELS", request.param)
