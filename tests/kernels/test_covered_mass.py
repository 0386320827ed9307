"""Covered mass by position; by slot, tests/profile/test_laziness.py holds it to the matrix."""

import pytest
import torch
from tolerance import KERNEL, relative_rms

from layerwright.kernels.covered_mass import covered_mass
from layerwright.kernels.covered_mass.reference import covered_mass_reference


def test_covered_mass_goes_by_position():
    """Keys in another order, with padding in between, NaN and all; in fp64."""
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 1, 6, 30, 8, generator=generator, dtype=torch.float64).unbind(0)
    q, k = q[:, :, -4:], k[:, :2]
    expected = covered_mass(q, k, (7, 12), 3)
    order = torch.randperm(30, generator=generator)
    padding = torch.full((1, 2, 2, 8), torch.nan, dtype=torch.float64)
    positions = torch.cat([torch.tensor([-1, -1]), order])[None]
    moved = torch.cat([padding, k[:, :, order]], dim=2)
    queries = torch.tensor([[26, 27, -1, 29]])
    found = covered_mass(q, moved, (7, 12), 3, queries, positions)
    assert found.dtype == torch.float64
    real = [0, 1, 3]
    assert relative_rms(found[..., real], expected[..., real]) <= KERNEL[torch.float64]
    assert (found[..., 2] == 0).all()


@pytest.mark.usefixtures("fused")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("queries", "keys"), [(1, 1), (7, 63), (11, 64), (20, 257)])
def test_one_pass_over_the_keys_is_the_reference(queries, keys, dtype, device):
    """Rows that fill no block, keys over several splits, padding that holds NaN."""
    generator = torch.Generator().manual_seed(keys)
    q = torch.randn(2, 6, queries, 13, generator=generator).to(device, dtype) * 2
    k = torch.randn(2, 2, keys, 13, generator=generator).to(device, dtype)
    there = torch.arange(keys, device=device).repeat(2, 1)
    there[1, : keys // 3] = -1
    there[1, keys // 3 :] = torch.arange(keys - keys // 3, device=device)
    asked = there[:, keys - queries :]
    k = k.masked_fill((there < 0)[:, None, :, None], torch.nan)
    spans = (1, 5, 40, 300)
    found = covered_mass(q, k, spans, 3, asked, there)
    expected = covered_mass_reference(q.double(), k.double().nan_to_num(0), spans, 3, asked, there)
    assert found.shape == (4, 2, 6, queries)
    assert relative_rms(found, expected) <= KERNEL[dtype]
    assert found[3].eq(asked[:, None] >= 0).all()  # exactly 1 where all is covered


@pytest.mark.usefixtures("fused")
def test_places_are_the_last_ones_by_default(device):
    q, k = torch.randn(1, 2, 3, 8, device=device), torch.randn(1, 1, 50, 8, device=device)
    there = torch.arange(50, device=device)[None]
    found = covered_mass(q, k, (9,), 2)
    assert found.equal(covered_mass(q, k, (9,), 2, there[:, 47:], there))
