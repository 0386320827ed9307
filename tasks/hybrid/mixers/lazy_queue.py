"""Which layers keep the whole prompt: for each row a bounded priority queue of layers."""

from collections.abc import Sequence
from heapq import heappush, heappushpop
from typing import Any


class LazyQueue:
    """Decides, row by row, which competing layers keep all keys: the least lazy `full_layers`.

    A priority queue per row, bounded: a layer enters with its lazy ratio, and when more than
    `full_layers` are in, the laziest leaves (LightTransfer's test mode, arXiv 2410.13846). Of
    equally lazy layers the highest leaves: it is the one that just came, so nothing held is cut.

    Args:
        layers: the competing cache layers (SelectiveCacheLayer), by their index in the model,
            ascending.
        full_layers: how many of them keep all keys.
        fixed: per row, the layers to trim, in place of a decision by laziness.

    Raises:
        ValueError: a fixed selection of other layers, or of more or fewer, than could be decided.
    """

    def __init__(
        self,
        layers: dict[int, Any],
        full_layers: int,
        fixed: Sequence[Sequence[int]] | None = None,
    ):
        self.layers, self.full_layers, self.fixed = layers, full_layers, fixed
        count = max(len(layers) - full_layers, 0)
        for row, trimmed in enumerate(fixed or []):
            if not len(trimmed) == len(set(trimmed) & set(layers)) == count:
                raise ValueError(
                    f"selection, row {row}: expected {count} different ones of the layers "
                    f"{list(layers)}, got {list(trimmed)}"
                )
        for index, layer in layers.items():
            layer.index, layer.queue = index, self
        self.reset()

    def reset(self) -> None:
        """Forgets a prompt, be it read to its end or not."""
        self.kept: list[list[tuple[float, int]]] = []  # per row a heap, the next to leave on top
        self.entered = 0

    def enter(self, layer: int, lazy_ratios: Sequence[float]) -> dict[int, list[int]]:
        """Lets a layer in, with its lazy ratio in each row.

        Returns:
            The rows, ascending, in which layers leave now, by the layer's index.

        Raises:
            ValueError: a fixed selection for another number of rows.
        """
        if self.fixed is not None:
            if len(self.fixed) != len(lazy_ratios):
                raise ValueError(
                    f"selection has {len(self.fixed)} rows for a batch of {len(lazy_ratios)}"
                )
            return {layer: [row for row, trimmed in enumerate(self.fixed) if layer in trimmed]}
        leaving: dict[int, list[int]] = {}
        self.kept = self.kept or [[] for _ in lazy_ratios]
        for row, ratio in enumerate(lazy_ratios):
            entry = (-ratio, -layer)
            if len(self.kept[row]) < self.full_layers:
                heappush(self.kept[row], entry)
            else:
                _, left = heappushpop(self.kept[row], entry)
                leaving.setdefault(-left, []).append(row)
        self.entered += 1
        if self.entered == len(self.layers):
            self.reset()
        return leaving

    def selection(self) -> list[tuple[int, ...]]:
        """Per row, the layers that were trimmed; no rows before a prompt."""
        batch = max(layer.batch for layer in self.layers.values())
        return [
            tuple(i for i, layer in self.layers.items() if row in layer.trimmed_rows)
            for row in range(batch)
        ]
