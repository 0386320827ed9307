"""The cost table: measured times of layers on one device, from which plan times are predicted."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from layerwright.tasks.contracts.base import Contract, identity
from layerwright.tasks.contracts.plan import ConversionPlan, PassTime

LayerSpec = dict[str, Any]


class TimeRatio(NamedTuple):
    """The ratio of two times, for prefill and decode."""

    prefill: float
    decode: float


class Spread(Contract):
    """Median and quartiles (``low``, ``high``) over the repeats, in seconds."""

    median: float
    low: float
    high: float


class MeasuredTime(Contract):
    """A measured time. ``time`` gives the medians."""

    prefill_seconds: Spread
    decode_seconds_per_token: Spread

    @property
    def time(self) -> PassTime:
        return PassTime(
            prefill_seconds=self.prefill_seconds.median,
            decode_seconds_per_token=self.decode_seconds_per_token.median,
        )


class LayerTime(MeasuredTime):
    """The time of one kind of layer."""

    spec: LayerSpec  # the hybrid model's layer spec, defaults included
    strategies: tuple[str, ...]  # those that produce this layer; ``keep`` for base layers


class MixedModel(MeasuredTime):
    """The time of a model with all kinds of layers; it checks that layer times add up."""

    specs: tuple[LayerSpec, ...]


class ContextCosts(Contract):
    """Times at one context length."""

    context_tokens: int
    outside: MeasuredTime  # embeddings, final norm and head; measured as a model without layers
    layers: tuple[LayerTime, ...]  # one per kind of layer; a removed layer takes time 0
    mixed: MixedModel

    def of_layers(self, specs: Iterable[LayerSpec]) -> PassTime | None:
        """The time of layers with these specs together; None if one of them was not measured."""
        measured = [[layer.time for layer in self.layers if layer.spec == spec] for spec in specs]
        return total_time(times[0] for times in measured) if all(measured) else None

    def of_model(self, specs: Iterable[LayerSpec]) -> PassTime | None:
        """The time of a whole model with these layers; None if one of them was not measured."""
        layers = self.of_layers(specs)
        return None if layers is None else total_time((self.outside.time, layers))

    @property
    def adding_up(self) -> TimeRatio:
        """Predicted over measured time of the mixed model; 1 means that times add up exactly."""
        predicted = self.of_model(self.mixed.specs)
        assert predicted is not None, "each layer of the mixed model is one of the measured kinds"
        return time_ratio(predicted, self.mixed.time)


class CostTable(Contract):
    """Measured times of a base's layers and of the layers that strategies make of them.

    The times are valid only for ``timed_on``, ``dtype`` and ``batch``.
    """

    model_sha256: str
    timed_on: dict[str, str]  # device, threads, libraries
    dtype: str
    batch: int
    decode_tokens: int
    repeats: int
    base_specs: tuple[LayerSpec, ...]  # of the unconverted layers
    contexts: tuple[ContextCosts, ...]
    seconds: float = 0.0

    @property
    def sha256(self) -> str:
        """The digest that a plan's ``costs_sha256`` refers to."""
        return identity(self)

    def at(self, context_tokens: int) -> ContextCosts | None:
        """Times at exactly this context length; None if it was not measured."""
        return next((c for c in self.contexts if c.context_tokens == context_tokens), None)


def total_time(times: Iterable[PassTime]) -> PassTime:
    """The sums of the prefill and of the decode times."""
    parts = list(times)
    return PassTime(
        prefill_seconds=sum(part.prefill_seconds for part in parts),
        decode_seconds_per_token=sum(part.decode_seconds_per_token for part in parts),
    )


def planned_time(plan: ConversionPlan) -> PassTime | None:
    """The predicted time of the converted model; None if an item lacks a prediction."""
    parts = [plan.outside_time, *(item.predicted_time for item in plan.items)]
    known = [part for part in parts if part is not None]
    return total_time(known) if len(known) == len(parts) else None


def time_ratio(time: PassTime, to: PassTime) -> TimeRatio:
    """The prefill and decode times of ``time`` divided by those of ``to``."""
    return TimeRatio(
        time.prefill_seconds / to.prefill_seconds,
        time.decode_seconds_per_token / to.decode_seconds_per_token,
    )


def planned_ratio(plan: ConversionPlan) -> TimeRatio | None:
    """The plan's predicted time over the base's; None if the plan lacks one of the two."""
    planned = planned_time(plan)
    return time_ratio(planned, plan.base_time) if planned and plan.base_time else None
