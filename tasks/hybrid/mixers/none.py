"""No mixer: the layer's tokens do not see each other. Nothing is projected, nothing is cached."""

from transformers.cache_utils import CacheLayerMixin

from layerwright.tasks.hybrid.mixers.attention import AttentionMixer


class EmptyCacheLayer(CacheLayerMixin):
    """The place of a layer without a mixer in the cache: it holds nothing."""

    def lazy_initialization(self, key_states, value_states) -> None:
        self.is_initialized = True

    def update(self, key_states, value_states, positions=None):
        raise RuntimeError("a layer without a mixer has nothing to cache")

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

    def reorder_cache(self, beam_idx) -> None:
        pass

    def batch_select_indices(self, indices) -> None:
        pass

    def batch_repeat_interleave(self, repeats: int) -> None:
        pass


class NoMixer(AttentionMixer):
    """Spec: {"kind": "none"}. It is never built: a layer without a mixer has no `self_attn`."""

    kind = "none"
    croppable = True

    @classmethod
    def reach_tokens(cls, spec) -> int:
        return 0

    @classmethod
    def cache_layer(cls, spec) -> EmptyCacheLayer:
        return EmptyCacheLayer()

    @classmethod
    def kv_bytes(cls, config, spec, context_tokens, batch, element_bytes, padded=False) -> int:
        return 0
