"""Peak memory: what a block held at once, whatever was held before it, the same each time."""

import pytest
import torch

from layerwright.tasks.timing.speed import peak_memory, weight_bytes

MIB = 2**20


@pytest.mark.parametrize("block", [100, 2 * MIB, 48 * MIB])
def test_the_peak_is_what_was_held_at_once(block: int) -> None:
    before = torch.ones(block, dtype=torch.uint8)
    with peak_memory("cpu") as peak:
        for _ in range(3):  # one pair after the other: never more than two at once
            held = [torch.ones(block, dtype=torch.uint8) for _ in range(2)]
            del held
        before += 1
    assert peak.nbytes == 2 * block


def test_what_was_held_before_does_not_pay_for_the_work() -> None:
    before = torch.ones(8 * MIB, dtype=torch.uint8)
    with peak_memory("cpu") as peak:
        grown = torch.cat([before, before])
        del before
    assert peak.nbytes == 16 * MIB == grown.nbytes


def test_work_without_tensors_takes_nothing() -> None:
    with peak_memory("cpu") as peak:
        pass
    assert peak.nbytes == 0


def test_weights_that_are_shared_count_once() -> None:
    first = torch.nn.Linear(30, 20, bias=False)
    second = torch.nn.Linear(30, 20, bias=False)
    model = torch.nn.Sequential(first, second)
    assert weight_bytes(model) == 2 * 600 * 4
    second.weight = first.weight
    assert weight_bytes(model) == 600 * 4
    second.weight = torch.nn.Parameter(torch.empty(20, 30, device="meta"))
    assert weight_bytes(model) is None
