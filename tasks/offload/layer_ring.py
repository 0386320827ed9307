"""A few buffers that a model's offloaded layers share; the next layers are read in advance."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from layerwright.tasks.models.skeleton import FlatWeights


@dataclass
class Slot:
    """A buffer on the device; on CUDA, ``released`` marks the end of the last work that used it."""

    flat: Tensor
    released: torch.cuda.Event | None = None


class LayerRing:
    """Loads an offloaded layer's weights before it runs and unloads them afterwards.

    A slot that becomes free is filled at once with the next layer that is not loaded, in cyclic
    order of the layers. One thread reads: the layers are needed one after the other, and a second
    reader would only share the disk's bandwidth. On CUDA the thread copies on its own stream.

    Args:
        layers: the weights of the offloaded layers by index, ascending.
        slots: number of buffers.
        slot_bytes: size of each buffer.
        device: device of the buffers.
        on_host: keep all weights in host memory (pinned on CUDA) instead of reading their files.
        prefetch: False reads each layer only when it is needed, for comparison.

    Attributes:
        asked: number of times a layer was needed.
        ahead: how often its weights were already loaded or being loaded.
    """

    def __init__(
        self,
        layers: Mapping[int, FlatWeights],
        slots: int,
        slot_bytes: int,
        device: torch.device,
        on_host: bool = False,
        prefetch: bool = True,
    ):
        self.asked = self.ahead = 0
        self._layers, self._order, self._prefetch = dict(layers), list(layers), prefetch
        self._cuda = device.type == "cuda"
        self._copies: Any = torch.cuda.Stream(device) if self._cuda else None
        self._free = [
            Slot(torch.empty(slot_bytes, dtype=torch.uint8, device=device)) for _ in range(slots)
        ]
        self._host: dict[int, Tensor] = {}
        self._staging: Any = None  # a pinned buffer, on CUDA without on_host
        if on_host:
            self._host = {i: weights.read(pinned=self._cuda) for i, weights in layers.items()}
        elif self._cuda:
            self._staging = torch.empty(slot_bytes, dtype=torch.uint8, pin_memory=True)
        self._loading: dict[int, tuple[Slot, Future[None]]] = {}
        self._in_use: tuple[int, Slot] | None = None
        self._reader: ThreadPoolExecutor | None = ThreadPoolExecutor(1, "layer-reader")
        self._fetch_ahead(self._order[-1])

    def swap_in(self, layer: int) -> None:
        """Assigns a layer's weights, after they have been loaded.

        Raises:
            LayerwrightError: the weights cannot be read; the message names file and tensor.
            RuntimeError: the ring is closed.
        """
        if self._reader is None:
            raise RuntimeError("this model was closed and has no weights: load it again")
        if self._in_use is not None:  # a forward pass that failed did not swap its layer out
            self.swap_out(self._in_use[0])
        self.asked += 1
        if layer in self._loading:
            self.ahead += 1
        else:
            self._start(layer)
        slot, load = self._loading.pop(layer)
        try:
            load.result()
        except BaseException:
            self._free.append(slot)
            self._cancel_loads()  # they may have failed too; they are read again when needed
            raise
        self._layers[layer].put(slot.flat)
        self._in_use = (layer, slot)

    def swap_out(self, layer: int) -> None:
        """Removes the layer's weights and starts to load the next layer into the slot."""
        assert self._in_use is not None
        _, slot = self._in_use
        self._layers[layer].take()
        if self._cuda:
            slot.released = torch.cuda.Event()
            slot.released.record()
        self._in_use = None
        self._free.append(slot)
        self._fetch_ahead(layer)

    def close(self) -> None:
        """Stops the thread and frees the buffers."""
        if self._reader is None:
            return
        self._reader.shutdown(cancel_futures=True)
        if self._in_use is not None:
            self._layers[self._in_use[0]].take()
        self._reader = self._in_use = self._staging = None
        # The modules' hooks refer to this ring: clear it, so that the model can be freed.
        for container in (self._loading, self._free, self._host, self._layers):
            container.clear()

    def nbytes(self) -> int:
        """Bytes of all slots, whether filled or not."""
        slots = [*self._free, *(slot for slot, _ in self._loading.values())]
        slots += [self._in_use[1]] if self._in_use else []
        return sum(slot.flat.untyped_storage().nbytes() for slot in slots)

    def _fetch_ahead(self, layer: int) -> None:
        if not self._prefetch:
            return
        turn = self._order.index(layer) + 1
        for following in self._order[turn:] + self._order[:turn]:
            if not self._free:
                return
            if following not in self._loading:
                self._start(following)

    def _start(self, layer: int) -> None:
        """Starts to load a layer into a free slot."""
        if not self._free:  # the layers run in another order than expected
            self._cancel_loads()
        assert self._reader is not None
        slot = self._free.pop()
        self._loading[layer] = slot, self._reader.submit(self._fill, layer, slot)

    def _cancel_loads(self) -> None:
        """Frees the slots of all pending loads.

        A slot may still be in use by the reader, but the reader works in order, so any new content
        of the slot is written later.
        """
        for slot, load in self._loading.values():
            load.cancel()
            self._free.append(slot)
        self._loading.clear()

    @torch.inference_mode()
    def _fill(self, layer: int, slot: Slot) -> None:
        """Loads a layer's weights into a slot; runs in the thread."""
        weights = self._layers[layer]
        if not self._cuda and not self._host:
            weights.read_into(slot.flat)
            return
        if self._host:
            source = self._host[layer]
        else:
            source = self._staging[: weights.nbytes]
            weights.read_into(source)
        target = slot.flat[: weights.nbytes]
        if not self._cuda:
            target.copy_(source)
            return
        if slot.released is not None:
            slot.released.synchronize()
        with torch.cuda.stream(self._copies):
            target.copy_(source, non_blocking=True)
        self._copies.synchronize()  # the slot is then valid on every stream
