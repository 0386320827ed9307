"""The buffer that a model's offloaded layers share."""

from collections.abc import Mapping

import torch
from torch import Tensor

from layerwright.tasks.models.skeleton import FlatWeights


class LayerSlot:
    """Loads an offloaded layer's weights before it runs and unloads them afterwards.

    Nothing is read in advance, because that gained nothing (benchmarks/2026-12-01-offload.md).

    Args:
        slot_bytes: size of the largest layer.
        on_host: keep all weights in host memory (pinned on CUDA) instead of reading their files.

    Attributes:
        asked: number of times a layer was needed.
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
        self._loaded: int | None = None
        cuda = device.type == "cuda"
        self._host: dict[int, Tensor] = {}
        self._staging: Tensor | None = None
        if on_host:
            self._host = {i: weights.read(pinned=cuda) for i, weights in layers.items()}
        elif cuda:
            self._staging = torch.empty(slot_bytes, dtype=torch.uint8, pin_memory=True)

    def swap_in(self, layer: int) -> None:
        """Reads a layer's weights and assigns them to its modules.

        Raises:
            LayerwrightError: the weights cannot be read; the message names file and tensor.
            RuntimeError: the slot is closed.
        """
        if self._flat is None:
            raise RuntimeError("this model was closed and has no weights: load it again")
        if self._loaded is not None:  # a forward pass that failed did not swap its layer out
            self.swap_out(self._loaded)
        self.asked += 1
        self._fill(self._layers[layer], layer, self._flat)
        self._layers[layer].put(self._flat)
        self._loaded = layer

    def swap_out(self, layer: int) -> None:
        """Removes the layer's weights from its modules."""
        self._layers[layer].take()
        self._loaded = None

    def close(self) -> None:
        """Frees the buffer."""
        if self._loaded is not None:
            self.swap_out(self._loaded)
        self._flat = self._staging = None
        # The modules' hooks refer to this slot: clear it, so that the model can be freed.
        self._host.clear()
        self._layers.clear()

    @torch.inference_mode()
    def _fill(self, weights: FlatWeights, layer: int, flat: Tensor) -> None:
        source = self._host.get(layer)
        if source is None:
            source = flat if self._staging is None else self._staging
            weights.read_into(source)
        if source is not flat:  # on CUDA the stream orders this copy after the last work
            flat[: weights.nbytes].copy_(source[: weights.nbytes])
