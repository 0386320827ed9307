"""The buffer through which a model's streamed layers take turns."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from layerwright.tasks.models.skeleton import FlatWeights


class LayerSlot:
    """Reads a layer's weights when its turn comes and takes them away when it is over.

    Nothing is read ahead: on the machines measured a background read gained nothing
    (benchmarks/2026-12-01-offload.md), and a second buffer costs another resident layer.

    Args:
        layers: the weights of the layers that take turns, by index.
        slot_bytes: size of the largest.
        device: of the buffer.
        on_host: keep all weights in host memory (pinned on CUDA) instead of in their files.

    Attributes:
        asked: turns so far.
    """

    def __init__(
        self,
        layers: Mapping[int, FlatWeights],
        slot_bytes: int,
        device: torch.device,
        on_host: bool = False,
    ):
        self.asked = 0
        self._layers = dict(layers)
        self._flat: Tensor | None = torch.empty(slot_bytes, dtype=torch.uint8, device=device)
        self._working: int | None = None
        cuda = device.type == "cuda"
        self._host: dict[int, Tensor] = {}
        self._staging: Tensor | None = None
        if on_host:
            self._host = {i: weights.read(pinned=cuda) for i, weights in layers.items()}
        elif cuda:
            self._staging = torch.empty(slot_bytes, dtype=torch.uint8, pin_memory=True)

    def swap_in(self, layer: int) -> None:
        """Reads a layer's weights and puts them in place.

        Raises:
            LayerwrightError: they could not be read; the message names file and tensor.
            RuntimeError: the slot is closed.
        """
        if self._flat is None:
            raise RuntimeError("the weights of this model were given up: load it again")
        if self._working is not None:  # a pass that failed halfway left its layer in place
            self.swap_out(self._working)
        self.asked += 1
        self._fill(self._layers[layer], layer, self._flat)
        self._layers[layer].put(self._flat)
        self._working = layer

    def swap_out(self, layer: int) -> None:
        """Takes the weights away."""
        self._layers[layer].take()
        self._working = None

    def close(self) -> None:
        """Frees the buffer."""
        if self._working is not None:
            self.swap_out(self._working)
        self._flat = self._staging = None
        # the modules' hooks hold this slot: without its layers the model is free with its last user
        self._host.clear()
        self._layers.clear()

    @torch.inference_mode()
    def _fill(self, weights: FlatWeights, layer: int, flat: Tensor) -> None:
        source = self._host.get(layer)
        if source is None:
            source = flat if self._staging is None else self._staging
            weights.read_into(source)
        if source is not flat:  # on CUDA after the work that still reads the buffer, in its stream
            flat[: weights.nbytes].copy_(source[: weights.nbytes])
