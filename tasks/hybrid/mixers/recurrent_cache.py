"""The cache layer of mixers that carry a state beside a window of keys and values."""

from torch import Tensor

from layerwright.tasks.hybrid.mixers.streaming import StreamingCacheLayer


class RecurrentCacheLayer(StreamingCacheLayer):
    """A streaming layer's window and the state after the last token, whatever the context.

    The states are set by the mixer. Their last token cannot be taken out again, so the layer can no
    more be cropped than its window.

    Attributes:
        state: (B, G, keys or slots, values) in fp32, None before the first token.
        slot_keys: (B, G, d, slots) in fp32, gated slot attention's second state; else None.
    """

    def __init__(self, sinks: int, window: int):
        super().__init__(sinks, window)
        self.state: Tensor | None = None
        self.slot_keys: Tensor | None = None

    def reset(self) -> None:
        super().reset()
        self.state = self.slot_keys = None

    def _map_rows(self, change) -> None:
        super()._map_rows(change)
        if self.state is not None:
            self.state = change(self.state)
        if self.slot_keys is not None:
            self.slot_keys = change(self.slot_keys)
