"""Selects the layers that keep the whole prompt: one bounded priority queue of layers per row."""

from collections.abc import Sequence
from heapq import heappush, heappushpop
from typing import Any


class LazyQueue:
    """Selects in each row the `full_layers` least lazy layers; these keep all keys.

    Each row has a priority queue. A layer enters with its lazy ratio; when the queue has more than
    `full_layers` layers, the laziest leaves (LightTransfer's test mode, arXiv 2410.13846). Of
    equally lazy layers the highest leaves: it came last, so no stored keys must be trimmed.

    Args:
        layers: the competing cache layers (SelectiveCacheLayer) by layer index, ascending.
        full_layers: how many of them keep all keys.
        fixed: for each row, the layers to trim; replaces the selection by lazy ratio.

    Raises:
        ValueError: `fixed` names other layers, or more or fewer layers, than a selection can have.
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
                    f"selection, row {row}: expected {count} distinct layers out of "
                    f"{list(layers)}, got {list(trimmed)}"
                )
        for index, layer in layers.items():
            layer.index, layer.queue = index, self
        self.reset()

    def reset(self) -> None:
        """Discards the selection of a prompt, even in the middle of the prompt."""
        self.kept: list[list[tuple[float, int]]] = []  # one heap per row; its top leaves next
        self.entered = 0

    def enter(self, layer: int, lazy_ratios: Sequence[float]) -> dict[int, list[int]]:
        """Adds a layer with its lazy ratio in each row.

        Returns:
            By layer index, the rows (ascending) in which this layer now leaves the queue.

        Raises:
            ValueError: `fixed` has another number of rows.
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
                _, evicted = heappushpop(self.kept[row], entry)
                leaving.setdefault(-evicted, []).append(row)
        self.entered += 1
        if self.entered == len(self.layers):
            self.reset()
        return leaving

    def selection(self) -> list[tuple[int, ...]]:
        """For each row, the layers that were trimmed; empty before a prompt."""
        batch = max(layer.batch for layer in self.layers.values())
        return [
            tuple(i for i, layer in self.layers.items() if row in layer.trimmed_rows)
            for row in range(batch)
        ]
