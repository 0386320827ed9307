"""Hidden states of many rows between two layers, and the progress of a pass, in files.

Shapes: B rows in a batch, T tokens a row, D hidden size.
"""

import shutil
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count, takewhile
from pathlib import Path

import torch
from safetensors.torch import load_file, save, save_file
from torch import Tensor

from layerwright.tasks.disk import write_atomically

States = Sequence[Tensor]  # (B, T, D) per batch
Record = dict[str, Tensor]  # one visitor's statistics of one block
# stores batches from an iterator; `tuple` keeps them in memory
Keep = Callable[[Iterable[Tensor]], States]


class SpilledStates(Sequence[Tensor]):
    """Batches in a folder, one file per batch, read on access.

    Args:
        temporary: deletes the files when this object is garbage-collected.
    """

    def __init__(self, folder: Path, *, device: str = "cpu", temporary: bool = False) -> None:
        self.folder, self.device = folder, device
        self._finalizer = weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        if not temporary:
            self._finalizer.detach()

    def __len__(self) -> int:
        return sum(1 for _ in self.folder.iterdir())

    def __getitem__(self, index: int) -> Tensor:  # type: ignore[override]
        file = self.folder / f"{range(len(self))[index]:06d}.safetensors"
        return load_file(file, device=self.device)["states"]

    def __iter__(self) -> Iterator[Tensor]:
        return (self[index] for index in range(len(self)))

    def move_to(self, folder: Path) -> "SpilledStates":
        """Moves the batches to a permanent folder with one atomic rename."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        self._finalizer.detach()
        self.folder.rename(folder)
        return SpilledStates(folder, device=self.device)


class Spill:
    """Stores hidden states in files, so that at most one batch is in memory at a time.

    Args:
        folder: emptied first; files of a killed process are not used.
    """

    def __init__(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        self._folders = (folder / f"{number:06d}" for number in count())

    def __call__(self, batches: Iterable[Tensor]) -> SpilledStates:
        folder = next(self._folders)
        folder.mkdir(parents=True)
        states = SpilledStates(folder, temporary=True)
        for index, batch in enumerate(batches):
            save_file({"states": batch.contiguous()}, folder / f"{index:06d}.safetensors")
            states.device = str(batch.device)
        return states


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
