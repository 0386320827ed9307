"""What a selector is given, and what it gives back."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Protocol

from pydantic import ConfigDict, Field, SkipValidation

from layerwright.tasks.components import Component
from layerwright.tasks.contracts.base import Contract, Spec
from layerwright.tasks.contracts.costs import ContextCosts, CostTable, total_time
from layerwright.tasks.contracts.plan import PassTime, PlanItem
from layerwright.tasks.contracts.profile import Damage, LayerProfile, MeasuredDamage, ModelProfile
from layerwright.tasks.errors import InputError
from layerwright.tasks.probes.recall import Probes

KEEP = "keep"


class LayerOption(Contract):
    """What one layer would become, with the KV bytes, parameters and time that it would take.

    ``spec`` has what the strategy takes from the layer's profile filled in; ``kv_bytes`` is at the
    problem's ``context_tokens``, batch 1, and so is ``time``, None where it was not measured.
    """

    spec: Spec
    kv_bytes: int = Field(ge=0)
    parameters: int = Field(ge=0)
    time: PassTime | None = None


class RunOption(LayerOption):
    """What layers ``start`` to ``stop`` (exclusive) would become as one thing."""

    start: int
    stop: int


class Candidate(Contract):
    """Something that layers can become: ``spec`` as the recipe says it, and each layer's own.

    ``runs``: what runs of layers would become as one, where their damage was measured.
    ``further``: what each layer of a run but its first becomes, where a run becomes one thing.
    """

    spec: Spec
    layers: tuple[LayerOption, ...]
    runs: tuple[RunOption, ...] = ()
    further: LayerOption | None = None

    def options(self, start: int, stop: int) -> tuple[LayerOption, ...]:
        """What layers ``start`` to ``stop`` become: one thing where that can be, else each."""
        joined = tuple(run for run in self.runs if (run.start, run.stop) == (start, stop))
        if joined or self.further is None:
            return joined or self.layers[start:stop]
        return self.layers[start], *[self.further] * (stop - start - 1)


class TrialOptions(Contract):
    """What whole plans are measured on.

    Attributes:
        rows, row_tokens: of the profile's text; None: as long as the profile's.
        probes, prompts, prompt_tokens: recall, as in the profiler `sensitivity`; no prompts: none.
    """

    rows: int = Field(default=2, ge=1)
    row_tokens: int | None = Field(default=None, ge=2)
    probes: Probes = ("passkey",)
    prompts: int = Field(default=4, ge=0)
    prompt_tokens: int = Field(default=600, ge=1)

    def tokens(self, row_tokens: int) -> int:
        """Tokens that one whole plan is run over; ``row_tokens``: of the profile's rows."""
        text = self.rows * (self.row_tokens or row_tokens)
        return text + self.prompts * len(self.probes) * self.prompt_tokens


class Trial(Protocol):
    """The real model, for selectors that try what they think of."""

    def measure(self, items: Sequence[PlanItem]) -> MeasuredDamage:
        """What a whole plan does to the base."""

    def changes(
        self, items: Sequence[PlanItem], instead: Sequence[PlanItem]
    ) -> list[MeasuredDamage | None]:
        """What the plan would do with each of ``instead`` in its place; None where it cannot be.

        Each begins and ends where an item of the plan does. Maps above it are not fitted anew.
        """


class Problem(Contract):
    """A model's profile and what its layers may become; ``keep`` is always allowed besides.

    ``layer_parameters`` are those of each layer as it is, ``other_parameters`` those of embeddings,
    final norm and head. ``costs`` are measured times, where the recipe asks for them.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    profile: ModelProfile
    candidates: tuple[Candidate, ...] = Field(min_length=1)
    context_tokens: int = Field(gt=0)
    seed: int = 0
    layer_parameters: tuple[int, ...]
    other_parameters: int
    costs: CostTable | None = None
    trial: SkipValidation[Trial] | None = Field(default=None, exclude=True, repr=False)

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

    @property
    def times(self) -> ContextCosts | None:
        """Measured times at ``context_tokens``; None where they were not measured."""
        return self.costs.at(self.context_tokens) if self.costs else None

    def base_time(self, start: int = 0, stop: int | None = None) -> PassTime | None:
        """Of layers ``start`` to ``stop`` (exclusive) as they are in the base."""
        if self.costs is None or self.times is None:
            return None
        return self.times.of_layers(self.costs.base_specs[start:stop])

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
            predicted_time=self.base_time(layer.layer, layer.layer + 1),
        )

    def converted(self, layer: LayerProfile, candidate: Candidate, reason: str) -> PlanItem:
        """The plan item of a layer that becomes ``candidate``, with its damage where measured."""
        return self.converted_run((layer,), candidate, reason)

    def converted_run(
        self, layers: Sequence[LayerProfile], candidate: Candidate, reason: str
    ) -> PlanItem:
        """The plan item of neighbouring layers, with its damage where that was measured."""
        start, stop = layers[0].layer, layers[-1].layer + 1
        options = candidate.options(start, stop)
        damage = layers[0].damage_of(candidate.spec, len(layers))
        return PlanItem(
            start=start,
            stop=stop,
            strategy=options[0].spec.name,
            params=options[0].spec.options,
            reason=reason,
            predicted_language_nats=damage.language_nats if damage else None,
            predicted_recall_nats=damage.recall_nats if damage else None,
            predicted_kv_bytes=sum(option.kv_bytes for option in options),
            predicted_time=time_of(options),
        )

    def saving(self, layer: LayerProfile, candidate: Candidate) -> str:
        """``saves 9.4 MB at 8,192 tokens``, for reasons; and parameters and time, where known."""
        return self.saving_of_run((layer,), candidate)

    def saving_of_run(self, layers: Sequence[LayerProfile], candidate: Candidate) -> str:
        """`saving` of neighbouring layers that become one thing."""
        start, stop = layers[0].layer, layers[-1].layer + 1
        options = candidate.options(start, stop)
        saved = sum(map(self.kept_kv_bytes, layers)) - sum(option.kv_bytes for option in options)
        words = f"saves {saved / 1e6:,.1f} MB at {self.context_tokens:,} tokens"
        fewer = sum(self.layer_parameters[start:stop]) - sum(o.parameters for o in options)
        if fewer:
            words += f" and {fewer / 1e6:,.1f} M parameters"
        before, after = self.base_time(start, stop), time_of(options)
        if before is None or after is None:
            return words
        prefill = before.prefill_seconds - after.prefill_seconds
        decode = before.decode_seconds_per_token - after.decode_seconds_per_token
        return f"{words}, {prefill * 1e3:,.2f} ms of its prefill and {decode * 1e3:,.3f} ms a token"


def time_of(options: Sequence[LayerOption]) -> PassTime | None:
    """Of all of them together; None where one was not measured."""
    known = [option.time for option in options if option.time is not None]
    return total_time(known) if len(known) == len(options) else None


class Selector(Component):
    """A rule that turns a profile into a plan. Pure: the same problem gives the same items."""

    kind: ClassVar[str] = "selector"
    room: ClassVar[str] = "layerwright.tasks.choose.selectors"

    @property
    def needs_times(self) -> bool:
        """Whether it reads measured times at the problem's context length."""
        return False

    @property
    def tries(self) -> TrialOptions | None:
        """What ``problem.trial`` measures on; None where it is not used and no model is loaded."""
        return None

    def estimate_tokens(self, layers: int, row_tokens: int) -> int:
        """Tokens of whole-model forward passes that trying plans takes, about."""
        return 0

    @abstractmethod
    def select(self, problem: Problem) -> tuple[PlanItem, ...]:
        """Items that cover the layers exactly and in order, each with its reason.

        Raises:
            InputError: the profile lacks what the rule reads, or no plan meets its limits.
        """


def named(spec: Spec) -> str:
    """``streaming (sinks 4, window 252)``, for messages and reasons."""
    options = ", ".join(f"{key} {value}" for key, value in spec.options.items())
    return f"{spec.name} ({options})" if options else spec.name


def ordinal(number: int) -> str:
    """1st, 2nd, 3rd, 4th, ... 11th, ... 21st."""
    teens = 10 <= number % 100 <= 20
    return f"{number}{'th' if teens else {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th')}"
