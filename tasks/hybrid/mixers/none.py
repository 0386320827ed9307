"""No mixer: the layer does not mix tokens, has no projections and caches nothing."""

from typing import Any, NoReturn

from torch import Tensor
from transformers.cache_utils import CacheLayerMixin

from layerwright.tasks.hybrid.mixers.attention import AttentionMixer, CacheSize


class EmptyCacheLayer(CacheLayerMixin):
    """The cache layer of a layer without a mixer; it holds nothing."""

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.is_initialized = True

    def update(self, *states: Any, **options: Any) -> NoReturn:
        raise RuntimeError("a layer without a mixer does not cache tokens")

    def get_seq_length(self) -> int:
        return 0

    def get_max_length(self) -> int:
        return -1

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return query_length, 0

    def reset(self) -> None:
        pass

    def crop(self, tokens_to_remove: int) -> None:
        pass

    def reorder_cache(self, beam_idx: Tensor) -> None:
        pass

    def batch_select_indices(self, indices: Tensor) -> None:
        pass

    def batch_repeat_interleave(self, repeats: int) -> None:
        pass


class NoMixer(AttentionMixer):
    """Spec: {"kind": "none"}. It is never instantiated: such a layer has no `self_attn`."""

    kind = "none"
    croppable = True

    @classmethod
    def reach_tokens(cls, spec: dict[str, Any]) -> int:
        return 0

    @classmethod
    def cache_layer(cls, spec: dict[str, Any]) -> EmptyCacheLayer:
        return EmptyCacheLayer()

    @classmethod
    def kv_bytes(cls, config: Any, spec: dict[str, Any], size: CacheSize) -> int:
        return 0
