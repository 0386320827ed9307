"""Keys and values of the tokens that stay visible, in fixed slots that are written in place.

Shapes: B batch, G key/value heads, N slots, d head size, R is B or 1.
"""

from typing import NamedTuple

import torch
from torch import Tensor


def ring_slots(positions: Tensor, sinks: int, slots: int) -> Tensor:
    """The slot of each position: itself below `sinks`, then round and round among the others.

    What it gives for padding is not to be used.
    """
    if sinks == slots:
        return positions
    turned = sinks + (positions - sinks) % (slots - sinks)
    return torch.where(positions < sinks, positions, turned)


class Ring(NamedTuple):
    """Position p lies in slot p while that is below S, else in slot S + (p - S) % (N - S).

    Attributes:
        keys, values: (B, G, N, d).
        positions: (R, N) int64, -1 for an empty slot.
        sinks: S, the slots that are never written again; all of them, where nothing is dropped.
    """

    keys: Tensor
    values: Tensor
    positions: Tensor
    sinks: int

    def slots(self, positions: Tensor) -> Tensor:
        """The slot of each position, of any shape."""
        return ring_slots(positions, self.sinks, self.keys.shape[2])

    def write(self, k_BG1d: Tensor, v_BG1d: Tensor, positions_R1: Tensor) -> None:
        """Puts a token of each row into its slot, over what lay there."""
        slots_R1 = self.slots(positions_R1)
        self.positions.scatter_(1, slots_R1, positions_R1)
        index = slots_R1[:, None, :, None].expand(*k_BG1d.shape[:2], 1, k_BG1d.shape[3])
        self.keys.scatter_(2, index, k_BG1d)
        self.values.scatter_(2, index, v_BG1d)
