"""The profile: measurements of each layer of a base model."""

from layerwright.tasks.contracts.base import Contract, Spec


class MeasuredDamage(Contract):
    """The quality that a conversion loses against the base. Positive is worse."""

    language_nats: float  # increase of the mean NLL per text token
    recall_nats: float  # mean over ``probes``
    kl_nats: float | None = None  # mean KL divergence from the base per text token
    probes: dict[str, float] = {}  # loss of the answers' mean log-probability per token


class Damage(MeasuredDamage):
    """The damage of converting one layer and keeping all others."""

    strategy: Spec
    layers: int = 1  # consecutive layers, from this one on, that are converted together


class LayerProfile(Contract):
    """All measurements of one layer. Each profiler documents the meaning of its scores."""

    layer: int
    scores: dict[str, float] = {}
    damage: tuple[Damage, ...] = ()

    def damage_of(self, strategy: Spec, layers: int = 1) -> Damage | None:
        """The damage of a strategy with exactly these options; None if it was not measured."""
        return next((d for d in self.damage if (d.strategy, d.layers) == (strategy, layers)), None)


class CacheGeometry(Contract):
    """The shape of the base's KV caches."""

    kv_heads: int
    head_dim: int
    element_bytes: int
    # per layer, the tokens that the cache keeps; None or (): all
    window_tokens: tuple[int | None, ...] = ()

    @property
    def bytes_per_token(self) -> int:
        """Bytes of one token's keys and values in one layer."""
        return 2 * self.kv_heads * self.head_dim * self.element_bytes

    def layer_bytes(self, layer: int, context_tokens: int) -> int:
        """KV bytes of one unconverted layer, batch 1."""
        window = self.window_tokens[layer] if self.window_tokens else None
        kept = context_tokens if window is None else min(window, context_tokens)
        return kept * self.bytes_per_token


class ModelProfile(Contract):
    """The result of the profile step."""

    model_sha256: str
    text_sha256: str
    tokens: int
    layers: tuple[LayerProfile, ...]
    geometry: CacheGeometry
    reference: dict[str, float] = {}  # figures of the whole base: ``nll``, ``key_log_prob``...
    seconds: float = 0.0

    def base_kv_bytes(self, context_tokens: int) -> int:
        """KV bytes of the whole base model, batch 1."""
        return sum(self.geometry.layer_bytes(p.layer, context_tokens) for p in self.layers)
