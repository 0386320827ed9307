"""The page of arithmetic counts what the definition shows."""

import pytest
import torch

from benchmarks.kernel_floors import MODELS, ByteCount, line, mass_row, visible_pairs
from layerwright.kernels.streaming_attention.reference import visible_keys


@pytest.mark.parametrize("tokens", [1, 5, 9, 10, 40])
@pytest.mark.parametrize(("sinks", "window"), [(0, 1), (4, 5), (3, 50), (7, 2)])
def test_pairs_are_those_of_the_mask(tokens, sinks, window):
    there = torch.arange(tokens)[None]
    assert visible_pairs(tokens, sinks, window) == visible_keys(there, there, sinks, window).sum()


def test_bytes_are_those_of_inputs_and_outputs():
    x = torch.empty(10, 4, device="meta")
    with ByteCount() as count:
        (x.T + 1).exp_()
    assert (count.bytes, count.operations) == (4 * 160, 2)


def test_a_line_names_its_bound():
    row = mass_row(MODELS[1], 1024)
    assert "| memory |" in line(row)
    assert row.floor_s == pytest.approx(2 * 3 * 1024 * 64 / 4.8e12)
