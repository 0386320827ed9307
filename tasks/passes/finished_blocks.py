"""Saves the progress of a block-by-block pass, so that it can resume after a kill.

Shapes: B rows in a batch, T tokens a row, D hidden size.
"""

import shutil
from itertools import count, takewhile
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from layerwright.tasks.disk import write_atomically
from layerwright.tasks.passes.states import SpilledStates, States

Record = dict[str, Tensor]  # one visitor's statistics of one block


class FinishedBlocks:
    """A folder with the records of each finished block and the hidden states after the last one.

    The order of writes makes a kill safe at any time: first the block's output states, then its
    records, which mark it as finished; the states before the block are removed last.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def load(self, device: torch.device) -> tuple[list[list[Record]], tuple[int, States] | None]:
        """Records of the finished blocks, if any, and the index and input of the next block."""
        files = takewhile(Path.is_file, map(self._records, count()))
        records = [_split(load_file(file)) for file in files]
        if not records:
            return [], None
        states = SpilledStates(self._states(len(records)), device=str(device))
        return records, (len(records), states)

    def finish(self, layer: int, records: list[Record], states: States) -> States:
        """Marks block ``layer`` as finished; returns its spilled output in a permanent folder."""
        assert isinstance(states, SpilledStates)
        kept = states.move_to(self._states(layer + 1))
        write_atomically(self._records(layer), save(_merge(records)))
        shutil.rmtree(self._states(layer), ignore_errors=True)
        return kept

    def _records(self, layer: int) -> Path:
        return self.folder / f"block_{layer:03d}.safetensors"

    def _states(self, layer: int) -> Path:
        return self.folder / f"input_{layer:03d}"


def _merge(records: list[Record]) -> Record:
    return {
        f"{visitor}.{name}": tensor.contiguous()
        for visitor, record in enumerate(records)
        for name, tensor in record.items()
    }


def _split(tensors: Record) -> list[Record]:
    """Each visitor's record has at least one tensor, so that no visitor is lost."""
    visitors = 1 + max(int(name.partition(".")[0]) for name in tensors)
    records: list[Record] = [{} for _ in range(visitors)]
    for name, tensor in tensors.items():
        visitor, _, plain = name.partition(".")
        records[int(visitor)][plain] = tensor
    return records
