"""Base class of the cache layers: resets, crops and changes of the batch."""

from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor
from transformers.cache_utils import CacheLayerMixin


class CacheLayer(CacheLayerMixin):
    """A cache layer whose tensors have the batch as their first dimension.

    A subclass names these attributes in `by_row`; each is None until it is filled.

    Attributes:
        cumulative_length: slots seen so far, padding included.
    """

    by_row: ClassVar[tuple[str, ...]] = ()
    crop_error: ClassVar[str] = (
        "a streaming layer's cache cannot be cropped: it no longer has the tokens before its "
        "window. Assisted and prompt-lookup decoding need a model whose capabilities have crop: "
        "true."
    )
    cumulative_length = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.dtype, self.device = key_states.dtype, key_states.device
        self.is_initialized = True

    def update(self, *states: Any, **options: Any) -> Any:
        raise NotImplementedError

    def get_seq_length(self) -> int:
        return self.cumulative_length

    def get_max_length(self) -> int:
        return -1  # no limit on the context

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.get_seq_length() + query_length, 0

    def reset(self) -> None:
        for name in self.by_row:
            setattr(self, name, None)
        self.is_initialized, self.cumulative_length = False, 0

    def crop(self, tokens_to_remove: int) -> None:
        """Raises RuntimeError unless the count is 0: dropped tokens are lost."""
        if tokens_to_remove:
            raise RuntimeError(self.crop_error)

    def reorder_cache(self, beam_idx: Tensor) -> None:
        self.batch_select_indices(beam_idx)

    def batch_select_indices(self, indices: Tensor) -> None:
        self._map_rows(lambda x: x[indices.to(x.device)])

    def batch_repeat_interleave(self, repeats: int) -> None:
        self._map_rows(lambda x: x.repeat_interleave(repeats, dim=0))

    def _map_rows(self, change: Callable[[Tensor], Tensor]) -> None:
        for name in self.by_row:
            if (tensor := getattr(self, name)) is not None:
                setattr(self, name, change(tensor))
