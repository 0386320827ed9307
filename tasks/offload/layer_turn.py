"""When a layer of a streamed model has its weights: while it runs, or for as long as a block asks.

Other code asks for `at_work` and need not know whether the model is streamed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import nn

from layerwright.tasks.hybrid.layer import HybridLayer

TURN = "turn"  # attribute of a layer that takes turns


class Ring(Protocol):
    """Gives layers their weights by index and takes them away: `LayerRing`."""

    def swap_in(self, layer: int) -> None: ...

    def swap_out(self, layer: int) -> None: ...


class LayerTurn:
    """Weights of one layer, whatever the layer has been turned into, as its modules stay shared.

    Attributes:
        held: somebody keeps the weights in place; running the layer then swaps nothing.
    """

    def __init__(self, ring: Ring, index: int) -> None:
        self.ring, self.index = ring, index
        self.held = False
        self._running = False

    def attach(self, layer: HybridLayer) -> None:
        """Let the layer fetch its weights whenever it runs."""
        setattr(layer, TURN, self)
        layer.register_forward_pre_hook(self._before)
        layer.register_forward_hook(self._after, always_call=True)

    def _before(self, layer: nn.Module, inputs: tuple) -> None:
        if self.held:
            return
        if torch.is_grad_enabled() and inputs[0].requires_grad:
            raise RuntimeError("a gradient would look for weights that have gone: hold the layer")
        self.ring.swap_in(self.index)
        self._running = True

    def _after(self, layer: nn.Module, inputs: tuple, output: object) -> None:
        if self._running and not self.held:  # not after weights that never came
            self._running = False
            self.ring.swap_out(self.index)


@contextmanager
def at_work(layer: HybridLayer) -> Iterator[None]:
    """The layer's weights are in place for the length of the block, gradients through it included.

    One layer of a model at a time; asking again for the same one is free.
    """
    turn: LayerTurn | None = getattr(layer, TURN, None)
    if turn is None or turn.held:
        yield
        return
    turn.ring.swap_in(turn.index)
    turn.held = True
    try:
        yield
    finally:
        turn.held = False
        turn.ring.swap_out(turn.index)


def follow(before: HybridLayer, after: HybridLayer) -> None:
    """Give a layer that was made of another one's modules the other's turn."""
    turn: LayerTurn | None = getattr(before, TURN, None)
    if turn is not None and getattr(after, TURN, None) is None:
        turn.attach(after)
