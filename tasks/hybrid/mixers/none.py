"""No mixer: the layer does not mix tokens, has no projections and caches nothing."""

from typing import Any, NoReturn

from layerwright.tasks.hybrid.mixers.attention import AttentionMixer, CacheSize
from layerwright.tasks.hybrid.mixers.cache_layer import CacheLayer


class EmptyCacheLayer(CacheLayer):
    """The cache layer of a layer without a mixer; it holds nothing."""

    def update(self, *states: Any, **options: Any) -> NoReturn:
        raise RuntimeError("a layer without a mixer does not cache tokens")

    def crop(self, tokens_to_remove: int) -> None:
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
