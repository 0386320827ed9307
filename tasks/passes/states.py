"""Hidden states of many rows between two layers, in memory or in files.

Shapes: B rows in a batch, T tokens a row, D hidden size.
"""

import shutil
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

States = Sequence[Tensor]  # (B, T, D) per batch
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
