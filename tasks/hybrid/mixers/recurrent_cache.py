"""The cache layer of mixers that keep a recurrent state besides a window of keys and values."""

from collections.abc import Callable

from torch import Tensor

from layerwright.tasks.hybrid.mixers.streaming import StreamingCacheLayer


class RecurrentCacheLayer(StreamingCacheLayer):
    """A sliding window and the state after the last token; its size does not depend on the context.

    The mixer sets the states. A token cannot be removed from a state, so the layer cannot be
    cropped.

    Attributes:
        state: (B, G, keys or slots, values) in fp32; None before the first token.
        slot_keys: (B, G, d, slots) in fp32, the second state of gated slot attention; else None.
    """

    def __init__(self, sinks: int, window: int):
        super().__init__(sinks, window)
        self.state: Tensor | None = None
        self.slot_keys: Tensor | None = None

    def reset(self) -> None:
        super().reset()
        self.state = self.slot_keys = None

    def _map_rows(self, change: Callable[[Tensor], Tensor]) -> None:
        super()._map_rows(change)
        if self.state is not None:
            self.state = change(self.state)
        if self.slot_keys is not None:
            self.slot_keys = change(self.slot_keys)
