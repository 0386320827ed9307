"""Threads: one for tiny models, where more only wait for each other; all for the real one."""

import pytest
import torch

ALL_THREADS = torch.get_num_threads()


@pytest.fixture(autouse=True)
def threads(request: pytest.FixtureRequest) -> None:
    torch.set_num_threads(ALL_THREADS if request.node.get_closest_marker("real") else 1)
