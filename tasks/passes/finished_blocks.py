"""A pass through the blocks that survives a kill: what was found of each, and where the rows are.

Shapes: B rows in a batch, T tokens a row, D hidden size.
"""

from __future__ import annotations

import shutil
from itertools import count
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from layerwright.tasks.disk import write_atomically
from layerwright.tasks.passes.states import SpilledStates, States

Record = dict[str, Tensor]  # what one visitor has found of one block


class FinishedBlocks:
    """A folder with a file of records for each finished block, and the states behind the last.

    The states are put down before the records that say that the block is finished, and the states
    of the block below are removed last: wherever the process dies, one of the two is whole.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def found(self, device: torch.device) -> tuple[list[list[Record]], tuple[int, States] | None]:
        """Records of the finished blocks, and the next block with its input, if there are any."""
        records = []
        for layer in count():
            if not self._records(layer).is_file():
                break
            records.append(_apart(load_file(self._records(layer))))
        if not records:
            return [], None
        states = SpilledStates(self._states(len(records)), device=str(device))
        return records, (len(records), states)

    def keep(self, layer: int, records: list[Record], states: States) -> States:
        """Block ``layer`` is finished; ``states`` (spilled) are its output, kept from now on."""
        assert isinstance(states, SpilledStates)
        kept = states.kept_as(self._states(layer + 1))
        write_atomically(self._records(layer), save(_together(records)))
        shutil.rmtree(self._states(layer), ignore_errors=True)
        return kept

    def _records(self, layer: int) -> Path:
        return self.folder / f"block_{layer:03d}.safetensors"

    def _states(self, layer: int) -> Path:
        return self.folder / f"input_{layer:03d}"


def _together(records: list[Record]) -> Record:
    return {
        f"{visitor}.{name}": tensor.contiguous()
        for visitor, record in enumerate(records)
        for name, tensor in record.items()
    }


def _apart(tensors: Record) -> list[Record]:
    """Every visitor's record is of one tensor at least, so that none is lost here."""
    visitors = 1 + max(int(name.partition(".")[0]) for name in tensors)
    records: list[Record] = [{} for _ in range(visitors)]
    for name, tensor in tensors.items():
        visitor, _, plain = name.partition(".")
        records[int(visitor)][plain] = tensor
    return records
