"""The covered mass by position; by slot, tests/profile/test_laziness.py holds it to the matrix."""

import torch
from tolerance import KERNEL, relative_rms

from kernels.streaming_attention.covered_mass import covered_mass


def test_covered_mass_goes_by_position():
    """Keys in another order, with padding in between, NaN and all; in fp64."""
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 1, 6, 30, 8, generator=generator, dtype=torch.float64).unbind(0)
    q, k = q[:, :, -4:], k[:, :2]
    expected = covered_mass(q, k, 3, 7)
    order = torch.randperm(30, generator=generator)
    padding = torch.full((1, 2, 2, 8), torch.nan, dtype=torch.float64)
    positions = torch.cat([torch.tensor([-1, -1]), order])[None]
    moved = torch.cat([padding, k[:, :, order]], dim=2)
    queries = torch.tensor([[26, 27, -1, 29]])
    found = covered_mass(q, moved, 3, 7, queries, positions)
    assert found.dtype == torch.float64
    assert relative_rms(found[:, :, [0, 1, 3]], expected[:, :, [0, 1, 3]]) <= KERNEL[torch.float64]
    assert (found[:, :, 2] == 0).all()
