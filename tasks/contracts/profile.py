"""What was measured of a base model, layer by layer."""

from __future__ import annotations

from layerwright.tasks.contracts.base import Contract, Spec


class MeasuredDamage(Contract):
    """What a conversion costs against the base.

    ``language_nats``: rise of the mean NLL per text token. ``kl_nats``: mean KL to the base per
    text token. ``probes``: fall of the mean log-probability per token of the answer, by recall
    probe; ``recall_nats`` is their mean. Positive is worse.
    """

    language_nats: float
    recall_nats: float
    kl_nats: float | None = None
    probes: dict[str, float] = {}


class Damage(MeasuredDamage):
    """What converting one layer alone, all others kept, costs.

    With ``layers`` above 1 it is the damage of a run of that many layers from this one on,
    converted as one.
    """

    strategy: Spec
    layers: int = 1


class LayerProfile(Contract):
    """Everything that was measured of one layer; a score's meaning is its profiler's."""

    layer: int
    scores: dict[str, float] = {}
    damage: tuple[Damage, ...] = ()

    def damage_of(self, strategy: Spec, layers: int = 1) -> Damage | None:
        """The damage of one strategy with exactly these options, where it was measured."""
        return next((d for d in self.damage if (d.strategy, d.layers) == (strategy, layers)), None)


class CacheGeometry(Contract):
    """What the caches of a base's layers are made of.

    ``window_tokens``: per layer, how many tokens the base itself keeps; None keeps all. Empty
    where all layers do.
    """

    kv_heads: int
    head_dim: int
    element_bytes: int
    window_tokens: tuple[int | None, ...] = ()

    @property
    def bytes_per_token(self) -> int:
        """Of one layer's keys and values."""
        return 2 * self.kv_heads * self.head_dim * self.element_bytes

    def layer_bytes(self, layer: int, context_tokens: int) -> int:
        """KV bytes of one layer as it is in the base, batch 1."""
        window = self.window_tokens[layer] if self.window_tokens else None
        kept = context_tokens if window is None else min(window, context_tokens)
        return kept * self.bytes_per_token


class ModelProfile(Contract):
    """One profile pass over a model."""

    model_sha256: str
    text_sha256: str
    tokens: int
    layers: tuple[LayerProfile, ...]
    geometry: CacheGeometry
    reference: dict[str, float] = {}  # whole-model figures: "nll", "key_log_prob", ...
    seconds: float = 0.0

    def base_kv_bytes(self, context_tokens: int) -> int:
        """KV bytes of the whole base model, batch 1."""
        return sum(self.geometry.layer_bytes(p.layer, context_tokens) for p in self.layers)
