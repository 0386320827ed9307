"""Loads an offloaded layer's weights while it runs, or for the length of a block (`at_work`).

Callers use `at_work` for any model; it does nothing for layers that are not offloaded.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import nn

from layerwright.tasks.hybrid.layer import HybridLayer

TURN = "turn"  # attribute of an offloaded layer


class Slot(Protocol):
    """Loads and unloads layers' weights by index; see `LayerSlot`."""

    def swap_in(self, layer: int) -> None: ...

    def swap_out(self, layer: int) -> None: ...


class LayerTurn:
    """Loads one offloaded layer's weights when the layer runs, also after its conversion.

    Attributes:
        held: `at_work` keeps the weights loaded; running the layer then swaps nothing.
    """

    def __init__(self, slot: Slot, index: int) -> None:
        self.slot, self.index = slot, index
        self.held = False
        self._running = False

    def attach(self, layer: HybridLayer) -> None:
        """Registers hooks so that the layer loads its weights whenever it runs."""
        setattr(layer, TURN, self)
        layer.register_forward_pre_hook(self._before)
        layer.register_forward_hook(self._after, always_call=True)

    def _before(self, layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        if self.held:
            return
        if torch.is_grad_enabled() and inputs[0].requires_grad:
            raise RuntimeError(
                "a backward pass needs this layer's weights, which are unloaded: use at_work(layer)"
            )
        self.slot.swap_in(self.index)
        self._running = True

    def _after(self, layer: nn.Module, inputs: tuple[Any, ...], output: object) -> None:
        if self._running and not self.held:  # not if loading failed
            self._running = False
            self.slot.swap_out(self.index)


@contextmanager
def at_work(layer: HybridLayer) -> Iterator[None]:
    """Keeps the layer's weights loaded within the block, also for gradients through it.

    Only one layer of a model at a time. Nested calls for the same layer do nothing.
    """
    turn: LayerTurn | None = getattr(layer, TURN, None)
    if turn is None or turn.held:
        yield
        return
    turn.slot.swap_in(turn.index)
    turn.held = True
    try:
        yield
    finally:
        turn.held = False
        turn.slot.swap_out(turn.index)


def follow(old: HybridLayer, new: HybridLayer) -> None:
    """Makes a layer that shares another layer's modules use its offloading too."""
    turn: LayerTurn | None = getattr(old, TURN, None)
    if turn is not None and getattr(new, TURN, None) is None:
        turn.attach(new)
