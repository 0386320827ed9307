"""Hidden states of many rows between two layers: in memory, or in files where that is short.

Shapes: B rows in a batch, T tokens a row, D hidden size.
"""

from __future__ import annotations

import shutil
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

States = Sequence[Tensor]  # (B, T, D) per batch
Keep = Callable[[Iterable[Tensor]], States]  # takes batches as they come; `tuple` keeps in memory


class Spill:
    """Keeps states in files: no more than one batch of them is in memory at a time.

    Args:
        folder: emptied first; what a killed process left there is of no use.
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


class SpilledStates(Sequence[Tensor]):
    """Batches in a folder, one file each; read when they are asked for.

    Args:
        temporary: the files go when nobody holds this object any more.
    """

    def __init__(self, folder: Path, *, device: str = "cpu", temporary: bool = False) -> None:
        self.folder, self.device = folder, device
        self._end = weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        if not temporary:
            self._end.detach()

    def __len__(self) -> int:
        return sum(1 for _ in self.folder.iterdir())

    def __getitem__(self, index: int) -> Tensor:  # type: ignore[override]
        file = self.folder / f"{range(len(self))[index]:06d}.safetensors"
        return load_file(file, device=self.device)["states"]

    def __iter__(self) -> Iterator[Tensor]:
        return (self[index] for index in range(len(self)))

    def kept_as(self, folder: Path) -> SpilledStates:
        """The same batches in a folder that stays, whole or not at all."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        self._end.detach()
        self.folder.rename(folder)
        return SpilledStates(folder, device=self.device)
