"""What layers cost in time on one device, as measured: the table that plans are predicted from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from layerwright.tasks.contracts.base import Contract, identity
from layerwright.tasks.contracts.plan import ConversionPlan, PassTime

LayerSpec = dict[str, Any]


class TimeRatio(NamedTuple):
    """One time over another, part by part."""

    prefill: float
    decode: float


class Spread(Contract):
    """Median and quartiles over the repeats, in seconds."""

    median: float
    low: float
    high: float


class MeasuredTime(Contract):
    """A time as measured; ``time`` are its medians."""

    prefill_seconds: Spread
    decode_seconds_per_token: Spread

    @property
    def time(self) -> PassTime:
        return PassTime(
            prefill_seconds=self.prefill_seconds.median,
            decode_seconds_per_token=self.decode_seconds_per_token.median,
        )


class LayerTime(MeasuredTime):
    """One layer of a kind. ``spec`` is the hybrid model's, with its defaults filled in.

    ``strategies`` are those of the recipe that make it, ``keep`` for layers of the base.
    """

    spec: LayerSpec
    strategies: tuple[str, ...]


class MixedModel(MeasuredTime):
    """A whole model that has every kind of layer in turn: it says whether times add up."""

    specs: tuple[LayerSpec, ...]


class ContextCosts(Contract):
    """Times at one context length: of everything outside the layers, and of one layer a kind.

    A removed layer is among them, with no time: ``outside`` is a model of removed layers.
    """

    context_tokens: int
    outside: MeasuredTime
    layers: tuple[LayerTime, ...]
    mixed: MixedModel

    def of_layers(self, specs: Iterable[LayerSpec]) -> PassTime | None:
        """Of layers with these specs together; None where one was not measured."""
        times = []
        for spec in specs:
            found = next((layer.time for layer in self.layers if layer.spec == spec), None)
            if found is None:
                return None
            times.append(found)
        return total_time(times)

    def of_model(self, specs: Iterable[LayerSpec]) -> PassTime | None:
        """Of a whole model with these layers; None where one was not measured."""
        layers = self.of_layers(specs)
        return None if layers is None else total_time((self.outside.time, layers))

    @property
    def adding_up(self) -> TimeRatio:
        """What the times of layers predict for the mixed model, over what it took."""
        predicted = self.of_model(self.mixed.specs)
        assert predicted is not None, "every kind of layer of the mixed model has a time"
        return time_ratio(predicted, self.mixed.time)


class CostTable(Contract):
    """Measured times of one base and what its layers can become.

    They hold for what ``timed_on`` says (device, threads, libraries), ``dtype`` and ``batch``.
    ``base_specs`` are the layers of the base as it is.
    """

    model_sha256: str
    timed_on: dict[str, str]
    dtype: str
    batch: int
    decode_tokens: int
    repeats: int
    base_specs: tuple[LayerSpec, ...]
    contexts: tuple[ContextCosts, ...]
    seconds: float = 0.0

    @property
    def sha256(self) -> str:
        """The digest that plans name their table by."""
        return identity(self)

    def at(self, context_tokens: int) -> ContextCosts | None:
        """Times at exactly this length; None where it was not measured."""
        return next((c for c in self.contexts if c.context_tokens == context_tokens), None)


def total_time(times: Iterable[PassTime]) -> PassTime:
    """The sum, part by part."""
    every = list(times)
    return PassTime(
        prefill_seconds=sum(time.prefill_seconds for time in every),
        decode_seconds_per_token=sum(time.decode_seconds_per_token for time in every),
    )


def planned_time(plan: ConversionPlan) -> PassTime | None:
    """Of the whole model that a plan describes, at its context; None where it does not say so."""
    parts = [plan.outside_time, *(item.predicted_time for item in plan.items)]
    known = [part for part in parts if part is not None]
    return total_time(known) if len(known) == len(parts) else None


def time_ratio(time: PassTime, to: PassTime) -> TimeRatio:
    """``time`` over ``to``, part by part."""
    return TimeRatio(
        time.prefill_seconds / to.prefill_seconds,
        time.decode_seconds_per_token / to.decode_seconds_per_token,
    )


def planned_ratio(plan: ConversionPlan) -> TimeRatio | None:
    """The planned time over the base's; None where the plan does not say so."""
    mine = planned_time(plan)
    return time_ratio(mine, plan.base_time) if mine and plan.base_time else None
