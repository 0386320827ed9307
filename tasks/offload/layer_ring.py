"""A few buffers through which a model's layers take turns, the next ones read in the background."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from layerwright.tasks.models.skeleton import FlatWeights


@dataclass
class Slot:
    """A buffer on the device, and, on CUDA, the end of the last work with what is in it."""

    flat: Tensor
    released: torch.cuda.Event | None = None


class LayerRing:
    """Swaps layers in when their turn comes and out when it is over.

    A slot that becomes free is at once filled with the next layer that has none, in the order of
    the layers and round again. One thread reads: layers are wanted one after the other, and two
    readers would only share the disk. On CUDA it copies on a stream of its own.

    Args:
        layers: the weights of the layers that take turns, by index, ascending.
        slots: number of buffers.
        slot_bytes: size of each.
        device: of the buffers.
        on_host: keep all weights in host memory (pinned on CUDA) instead of in their files.
        prefetch: False reads each layer when its turn has come, for comparison.

    Attributes:
        asked: turns so far.
        ahead: those whose layer had arrived, or was on its way, before it was asked for.
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
        self._copies = torch.cuda.Stream(device) if self._cuda else None
        self._free = [
            Slot(torch.empty(slot_bytes, dtype=torch.uint8, device=device)) for _ in range(slots)
        ]
        self._host: dict[int, Tensor] = {}
        self._staging: Tensor | None = None
        if on_host:
            self._host = {i: weights.read(pinned=self._cuda) for i, weights in layers.items()}
        elif self._cuda:
            self._staging = torch.empty(slot_bytes, dtype=torch.uint8, pin_memory=True)
        self._arriving: dict[int, tuple[Slot, Future[None]]] = {}
        self._working: tuple[int, Slot] | None = None
        self._reader: ThreadPoolExecutor | None = ThreadPoolExecutor(1, "layer-reader")
        self._fetch_ahead(self._order[-1])

    def swap_in(self, layer: int) -> None:
        """Puts a layer's weights in place, when they have arrived.

        Raises:
            LayerwrightError: they could not be read; the message names file and tensor.
            RuntimeError: the ring is closed.
        """
        if self._reader is None:
            raise RuntimeError("the weights of this model were given up: load it again")
        if self._working is not None:  # a pass that failed halfway left its layer in place
            self.swap_out(self._working[0])
        self.asked += 1
        if layer in self._arriving:
            self.ahead += 1
        else:
            self._start(layer)
        slot, arrival = self._arriving.pop(layer)
        try:
            arrival.result()
        except BaseException:
            self._free.append(slot)
            self._give_up_arrivals()  # they may have failed too, and are read anew when asked for
            raise
        self._layers[layer].put(slot.flat)
        self._working = (layer, slot)

    def swap_out(self, layer: int) -> None:
        """Takes the weights away and fills the slot with the next layer."""
        _, slot = self._working
        self._layers[layer].take()
        if self._cuda:
            slot.released = torch.cuda.Event()
            slot.released.record()
        self._working = None
        self._free.append(slot)
        self._fetch_ahead(layer)

    def close(self) -> None:
        """Ends the thread and frees the buffers."""
        if self._reader is None:
            return
        self._reader.shutdown(cancel_futures=True)
        if self._working is not None:
            self._layers[self._working[0]].take()
        self._reader = self._working = self._staging = None
        # the modules' hooks hold this ring: without its layers the model is free with its last user
        for held in (self._arriving, self._free, self._host, self._layers):
            held.clear()

    def nbytes(self) -> int:
        """Bytes of all slots, whatever is in them."""
        slots = [*self._free, *(slot for slot, _ in self._arriving.values())]
        slots += [self._working[1]] if self._working else []
        return sum(slot.flat.untyped_storage().nbytes() for slot in slots)

    def _fetch_ahead(self, layer: int) -> None:
        if not self._prefetch:
            return
        turn = self._order.index(layer) + 1
        for following in self._order[turn:] + self._order[:turn]:
            if not self._free:
                return
            if following not in self._arriving:
                self._start(following)

    def _start(self, layer: int) -> None:
        """Sends the reader for a layer."""
        if not self._free:  # layers are asked for in another order
            self._give_up_arrivals()
        slot = self._free.pop()
        self._arriving[layer] = slot, self._reader.submit(self._fill, layer, slot)

    def _give_up_arrivals(self) -> None:
        """Frees their slots. One may still be being filled: the reader works in order, so whatever
        is to come into it comes later."""
        for slot, arrival in self._arriving.values():
            arrival.cancel()
            self._free.append(slot)
        self._arriving.clear()

    @torch.inference_mode()
    def _fill(self, layer: int, slot: Slot) -> None:
        """Runs in the thread."""
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
        self._copies.synchronize()  # the slot is full for every stream when this thread says so
