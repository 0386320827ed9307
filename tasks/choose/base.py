"""Selector, the base class of selectors, and Problem, its input."""

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from pydantic import ConfigDict, Field, SkipValidation

from layerwright.tasks.choose.trial import Trial
from layerwright.tasks.components import Component
from layerwright.tasks.contracts.base import Contract, Spec
from layerwright.tasks.contracts.costs import ContextCosts, CostTable, total_time
from layerwright.tasks.contracts.plan import PassTime, PlanItem
from layerwright.tasks.contracts.profile import Damage, LayerProfile, ModelProfile
from layerwright.tasks.errors import InputError
from layerwright.tasks.probes.recall import Probes
from layerwright.tasks.strategies.base import Strategy

KEEP = "keep"


class LayerOption(Contract):
    """A layer converted with a strategy: its KV bytes, parameters and time.

    KV bytes and time are at the problem's ``context_tokens``, batch 1; ``time`` is None if it was
    not measured. ``strategy`` has the options that it reads from the layer's profile.
    """

    strategy: Strategy
    kv_bytes: int = Field(ge=0)
    parameters: int = Field(ge=0)
    time: PassTime | None = None


class RunOption(LayerOption):
    """Layers ``start`` to ``stop`` (exclusive) converted together into a single block."""

    start: int
    stop: int


class Candidate(Contract):
    """A strategy that layers can get, as the recipe writes it, with its cost for each layer."""

    strategy: Strategy
    layers: tuple[LayerOption, ...]
    runs: tuple[RunOption, ...] = ()  # the options of runs of layers whose damage was measured
    further: LayerOption | None = None  # of each layer of a run after its first, if it joins

    @property
    def spec(self) -> Spec:
        return self.strategy.spec

    def options(self, start: int, stop: int) -> tuple[LayerOption, ...]:
        """The options of layers ``start`` to ``stop``: joined if the strategy joins layers."""
        joined = tuple(run for run in self.runs if (run.start, run.stop) == (start, stop))
        if joined or self.further is None:
            return joined or self.layers[start:stop]
        return self.layers[start], *[self.further] * (stop - start - 1)


class TrialOptions(Contract):
    """The text and the recall prompts that whole plans are measured on."""

    rows: int = Field(default=2, ge=1)
    row_tokens: int | None = Field(default=None, ge=2)  # None: whole rows
    probes: Probes = ("passkey",)  # recall probes, as in the profiler `sensitivity`
    prompts: int = Field(default=4, ge=0)  # prompts of each probe; 0: no recall
    prompt_tokens: int = Field(default=600, ge=1)

    def tokens(self, row_tokens: int) -> int:
        """Tokens of a measurement of a whole plan; ``row_tokens``: of the calibration rows."""
        text = self.rows * (self.row_tokens or row_tokens)
        return text + self.prompts * len(self.probes) * self.prompt_tokens


class Problem(Contract):
    """The input of a selector: the profile, and the strategies that its layers may get."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    profile: ModelProfile
    candidates: tuple[Candidate, ...] = Field(min_length=1)  # without ``keep``, always allowed
    context_tokens: int = Field(gt=0)  # context length of all KV bytes and times
    seed: int = 0
    layer_parameters: tuple[int, ...]  # parameters of each unconverted layer
    other_parameters: int  # parameters of embeddings, final norm and head
    costs: CostTable | None = None  # measured times, if the recipe asks for them
    # measures plans on the model; None unless the selector needs it
    trial: SkipValidation[Trial] | None = Field(default=None, exclude=True, repr=False)

    @property
    def layers(self) -> tuple[LayerProfile, ...]:
        return self.profile.layers

    def kept_kv_bytes(self, layer: LayerProfile) -> int:
        """KV bytes of an unconverted layer at ``context_tokens``, batch 1."""
        return self.profile.geometry.layer_bytes(layer.layer, self.context_tokens)

    @property
    def base_kv_bytes(self) -> int:
        """KV bytes of the whole base at ``context_tokens``, batch 1."""
        return self.profile.base_kv_bytes(self.context_tokens)

    @property
    def times(self) -> ContextCosts | None:
        """Measured times at ``context_tokens``; None if they were not measured."""
        return self.costs.at(self.context_tokens) if self.costs else None

    def base_time(self, start: int = 0, stop: int | None = None) -> PassTime | None:
        """Time of the base's layers ``start`` to ``stop`` (exclusive); None if not measured."""
        if self.costs is None or self.times is None:
            return None
        return self.times.of_layers(self.costs.base_specs[start:stop])

    def score(self, layer: LayerProfile, score: str, profiler: str) -> float:
        """A layer's score; an InputError names ``profiler`` if the profile does not have it."""
        value = layer.scores.get(score)
        if value is None or not math.isfinite(value):
            raise InputError(
                f"the profile has no {score} of layer {layer.layer}",
                where="choose.selector",
                remedy=f"add `- name: {profiler}` to profile.profilers",
            )
        return value

    def possible(self, layer: LayerProfile, candidate: Candidate) -> bool:
        """False if the profile has the strategy's damage for other layers but not for this one."""
        measured = [other.damage_of(candidate.spec) is not None for other in self.layers]
        return measured[layer.layer] or not any(measured)

    def damage(self, layer: LayerProfile, candidate: Candidate) -> Damage:
        """The damage of a strategy in a layer; InputError if the profile does not have it."""
        damage = layer.damage_of(candidate.spec)
        if damage is None or not math.isfinite(damage.language_nats + damage.recall_nats):
            raise InputError(
                f"the profile has no damage of layer {layer.layer} as {named(candidate.spec)}",
                where="choose.selector",
                remedy="add `- name: sensitivity` to profile.profilers",
            )
        return damage

    def kept(self, layer: LayerProfile, reason: str) -> PlanItem:
        """The plan item of a kept layer."""
        time = self.base_time(layer.layer, layer.layer + 1)
        return kept_item(layer.layer, reason, self.kept_kv_bytes(layer), time)

    def converted(
        self, layers: Sequence[LayerProfile], candidate: Candidate, reason: str
    ) -> PlanItem:
        """The plan item of a converted run, with its damage if that was measured."""
        start, stop = layers[0].layer, layers[-1].layer + 1
        options = candidate.options(start, stop)
        damage = layers[0].damage_of(candidate.spec, len(layers))
        return PlanItem(
            start=start,
            stop=stop,
            strategy=options[0].strategy.name,
            params=options[0].strategy.spec.options,
            reason=reason,
            predicted_language_nats=damage.language_nats if damage else None,
            predicted_recall_nats=damage.recall_nats if damage else None,
            predicted_kv_bytes=sum(option.kv_bytes for option in options),
            predicted_time=time_of(options),
        )

    def saving(self, layers: Sequence[LayerProfile], candidate: Candidate) -> str:
        """``saves 9.4 MB at 8,192 tokens``, with parameters and time if they are known."""
        start, stop = layers[0].layer, layers[-1].layer + 1
        options = candidate.options(start, stop)
        saved = sum(map(self.kept_kv_bytes, layers)) - sum(option.kv_bytes for option in options)
        text = f"saves {saved / 1e6:,.1f} MB at {self.context_tokens:,} tokens"
        fewer = sum(self.layer_parameters[start:stop]) - sum(o.parameters for o in options)
        if fewer:
            text += f" and {fewer / 1e6:,.1f} M parameters"
        before, after = self.base_time(start, stop), time_of(options)
        if before is None or after is None:
            return text
        prefill = before.prefill_seconds - after.prefill_seconds
        decode = before.decode_seconds_per_token - after.decode_seconds_per_token
        return f"{text}, {prefill * 1e3:,.2f} ms of its prefill and {decode * 1e3:,.3f} ms a token"


def kept_item(layer: int, reason: str, kv_bytes: int, time: PassTime | None) -> PlanItem:
    """The plan item of a kept layer, with its KV bytes and time."""
    return PlanItem(
        start=layer,
        stop=layer + 1,
        strategy=KEEP,
        reason=reason,
        predicted_language_nats=0.0,
        predicted_recall_nats=0.0,
        predicted_kv_bytes=kv_bytes,
        predicted_time=time,
    )


def time_of(options: Sequence[LayerOption]) -> PassTime | None:
    """Total time of the options; None if the time of any option was not measured."""
    times = [option.time for option in options if option.time is not None]
    return total_time(times) if len(times) == len(options) else None


class Selector(Component):
    """A rule that turns a problem into plan items. The same problem gives the same items."""

    kind: ClassVar[str] = "selector"
    room: ClassVar[str] = "layerwright.tasks.choose.selectors"

    @property
    def needs_times(self) -> bool:
        """Whether the selector needs measured times at the problem's context length."""
        return False

    @property
    def tries(self) -> TrialOptions | None:
        """The text that ``problem.trial`` measures on; None: the step does not load the model."""
        return None

    def estimate_tokens(self, layers: int, row_tokens: int) -> int:
        """Estimate the tokens of whole-model forward passes that the trials take."""
        return 0

    @abstractmethod
    def select(self, problem: Problem) -> tuple[PlanItem, ...]:
        """Items that cover all layers exactly once, in order, each with a reason; InputError if the
        profile lacks a score or damage, or no plan meets the limits.
        """


def named(spec: Spec) -> str:
    """The strategy and its options as text: ``streaming (sinks 4, window 252)``."""
    options = ", ".join(f"{key} {value}" for key, value in spec.options.items())
    return f"{spec.name} ({options})" if options else spec.name


def ordinal(number: int) -> str:
    """1st, 2nd, 3rd, 4th, ... 11th, ... 21st."""
    teens = 10 <= number % 100 <= 20
    return f"{number}{'th' if teens else {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th')}"
