"""A ring buffer of keys and values: fixed slots that are overwritten in place.

Shapes: B batch, G key/value heads, N slots, d head size, R is B or 1.
"""

from typing import NamedTuple

import torch
from torch import Tensor


def ring_slots(positions: Tensor, sinks: int, slots: int) -> Tensor:
    """The slot of each position, cyclic from `sinks` on; for padding it has no meaning."""
    if sinks == slots:
        return positions
    cyclic = sinks + (positions - sinks) % (slots - sinks)
    return torch.where(positions < sinks, positions, cyclic)


class Ring(NamedTuple):
    """Ring buffer of keys and values with N slots.

    Position p is in slot p if p < S, else in slot S + (p - S) % (N - S).

    Attributes:
        keys, values: (B, G, N, d).
        positions: (R, N) int64, -1 for an empty slot.
        sinks: S, the number of slots that are never overwritten; N if nothing is dropped.
    """

    keys: Tensor
    values: Tensor
    positions: Tensor
    sinks: int

    def slots(self, positions: Tensor) -> Tensor:
        """The slot of each position; the shape stays."""
        return ring_slots(positions, self.sinks, self.keys.shape[2])

    def write(self, k_BG1d: Tensor, v_BG1d: Tensor, positions_R1: Tensor) -> None:
        """Writes one token per row into its slot, over the old token there."""
        slots_R1 = self.slots(positions_R1)
        self.positions.scatter_(1, slots_R1, positions_R1)
        index = slots_R1[:, None, :, None].expand(*k_BG1d.shape[:2], 1, k_BG1d.shape[3])
        self.keys.scatter_(2, index, k_BG1d)
        self.values.scatter_(2, index, v_BG1d)
