"""What a selector is given, and what it gives back."""

from __future__ import annotations

import math
from typing import ClassVar

from pydantic import Field

from tasks.contracts import Contract, Damage, LayerProfile, ModelProfile, PlanItem, Spec
from tasks.errors import InputError
from tasks.registry import Component

KEEP = "keep"


class Candidate(Contract):
    """Something that a layer can become, with the KV bytes of one such layer.

    ``kv_bytes`` is at the problem's ``context_tokens``, batch 1.
    """

    spec: Spec
    kv_bytes: int = Field(ge=0)


class Problem(Contract):
    """A model's profile and what its layers may become; ``keep`` is always allowed besides."""

    profile: ModelProfile
    candidates: tuple[Candidate, ...] = Field(min_length=1)
    context_tokens: int = Field(gt=0)
    seed: int = 0

    @property
    def layers(self) -> tuple[LayerProfile, ...]:
        return self.profile.layers

    @property
    def full_kv_bytes(self) -> int:
        """KV bytes of one layer that is kept, at ``context_tokens``, batch 1."""
        return self.profile.kv_bytes_per_token * self.context_tokens

    @property
    def base_kv_bytes(self) -> int:
        """KV bytes of the whole base model, at ``context_tokens``, batch 1."""
        return self.full_kv_bytes * len(self.layers)

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
            predicted_kv_bytes=self.full_kv_bytes,
        )

    def converted(self, layer: LayerProfile, candidate: Candidate, reason: str) -> PlanItem:
        """The plan item of a layer that becomes ``candidate``, with its damage where measured."""
        damage = layer.damage_of(candidate.spec)
        return PlanItem(
            start=layer.layer,
            stop=layer.layer + 1,
            strategy=candidate.spec.name,
            params=candidate.spec.options,
            reason=reason,
            predicted_language_nats=damage.language_nats if damage else None,
            predicted_recall_nats=damage.recall_nats if damage else None,
            predicted_kv_bytes=candidate.kv_bytes,
        )

    def saving(self, candidate: Candidate) -> str:
        """``saves 9.4 MB at 8,192 tokens``, for reasons."""
        megabytes = (self.full_kv_bytes - candidate.kv_bytes) / 1e6
        return f"saves {megabytes:,.1f} MB at {self.context_tokens:,} tokens"


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
