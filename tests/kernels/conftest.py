"""Each implementation in turn, for operators that no other test holds to their definition."""

import pytest


@pytest.fixture(params=["blockwise", "triton"])
def both(request, device, monkeypatch):
    """Each implementation in turn."""
    if request.param == "triton":
        request.getfixturevalue("fused")
    else:
        monkeypatch.setenv("LAYERWRIGHT_KERNELS", request.param)
