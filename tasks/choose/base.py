"""What a selector is given, and what it gives back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field

from tasks.contracts import Contract, Damage, LayerProfile, ModelProfile, PlanItem, Spec
from tasks.errors import InputError
from tasks.registry import Component

KEEP = "keep"


class LayerOption(Contract):
    """What one layer would become, with the KV bytes that it would take.

    ``spec`` has what the strategy takes from the layer's profile filled in; ``kv_bytes`` is at the
    problem's ``context_tokens``, batch 1.
    """

    spec: Spec
    kv_bytes: int = Field(ge=0)


class Candidate(Contract):
    """Something that a layer can become: ``spec`` as the recipe says it, and each layer's own."""

    spec: Spec
    layers: tuple[LayerOption, ...]


class Problem(Contract):
    """A model's profile and what its layers may become; ``keep`` is always allowed besides."""

    profile: ModelProfile
    candidates: tuple[Candidate, ...] = Field(min_length=1)
    context_tokens: int = Field(gt=0)
    seed: int = 0

    @property
    def layers(self) -> tuple[LayerProfile, ...]:
        return self.profile.layers

    def kept_kv_bytes(self, layer: LayerProfile) -> int:
        """KV bytes of a layer that is kept, at ``context_tokens``, batch 1."""
        return self.profile.geometry.layer_bytes(layer.layer, self.context_tokens)

    @property
    def base_kv_bytes(self) -> int:
        """KV bytes of the whole base model, at ``context_tokens``, batch 1."""
        return self.profile.base_kv_bytes(self.context_tokens)

    def score(self, layer: LayerProfile, score: str, profiler: str) -> float:
        """A layer's score.

        Raises:
            InputError: the profile does not have it; names the profiler to add.
        """
        value = layer.scores.get(score)
        if value is None or not math.isfinite(value):
            raise InputError(
                f"the profile has no {score} of layer {layer.layer}",
                where="choose.selector",
                remedy=f"add `- name: {profiler}` to profile.profilers",
            )
        return value

    def possible(self, layer: LayerProfile, candidate: Candidate) -> bool:
        """Whether a layer can become ``candidate``: not, where only others' damage was measured."""
        known = [one.damage_of(candidate.spec) is not None for one in self.layers]
        return known[layer.layer] or not any(known)

    def damage(self, layer: LayerProfile, candidate: Candidate) -> Damage:
        """What a layer loses as ``candidate``.

        Raises:
            InputError: the profile does not have it; names the profiler to add.
        """
        damage = layer.damage_of(candidate.spec)
        if damage is None or not math.isfinite(damage.language_nats + damage.recall_nats):
            raise InputError(
                f"the profile has no damage of layer {layer.layer} as {named(candidate.spec)}",
                where="choose.selector",
                remedy="add `- name: sensitivity` to profile.profilers",
            )
        return damage

    def kept(self, layer: LayerProfile, reason: str) -> PlanItem:
        """The plan item of a layer that stays as it is."""
        return PlanItem(
            start=layer.layer,
            stop=layer.layer + 1,
            strategy=KEEP,
            reason=reason,
            predicted_language_nats=0.0,
            predicted_recall_nats=0.0,
            predicted_kv_bytes=self.kept_kv_bytes(layer),
        )

    def converted(self, layer: LayerProfile, candidate: Candidate, reason: str) -> PlanItem:
        """The plan item of a layer that becomes ``candidate``, with its damage where measured."""
        return self.converted_run((layer,), candidate, reason)

    def converted_run(
        self, layers: Sequence[LayerProfile], candidate: Candidate, reason: str
    ) -> PlanItem:
        """The plan item of neighbouring layers; damage is known of single layers alone."""
        options = [candidate.layers[layer.layer] for layer in layers]
        damage = layers[0].damage_of(candidate.spec) if len(layers) == 1 else None
        return PlanItem(
            start=layers[0].layer,
            stop=layers[-1].layer + 1,
            strategy=options[0].spec.name,
            params=options[0].spec.options,
            reason=reason,
            predicted_language_nats=damage.language_nats if damage else None,
            predicted_recall_nats=damage.recall_nats if damage else None,
            predicted_kv_bytes=sum(option.kv_bytes for option in options),
        )

    def saving(self, layer: LayerProfile, candidate: Candidate) -> str:
        """``saves 9.4 MB at 8,192 tokens``, for reasons."""
        saved = self.kept_kv_bytes(layer) - candidate.layers[layer.layer].kv_bytes
        return f"saves {saved / 1e6:,.1f} MB at {self.context_tokens:,} tokens"


class Selector(Component):
    """A rule that turns a profile into a plan. Pure: the same problem gives the same items."""

    kind: ClassVar[str] = "selector"
    room: ClassVar[str] = "tasks.choose"

    def select(self, problem: Problem) -> tuple[PlanItem, ...]:
        """Items that cover the layers exactly and in order, each with its reason.

        Raises:
            InputError: the profile lacks what the rule reads, or no plan meets its limits.
        """
        raise NotImplementedError


def named(spec: Spec) -> str:
    """``streaming (sinks 4, window 252)``, for messages and reasons."""
    options = ", ".join(f"{key} {value}" for key, value in spec.options.items())
    return f"{spec.name} ({options})" if options else spec.name


def ordinal(number: int) -> str:
    """1st, 2nd, 3rd, 4th, ... 11th, ... 21st."""
    teens = 10 <= number % 100 <= 20
    return f"{number}{'th' if teens else {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th')}"
