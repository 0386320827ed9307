"""The step: one model for each kind of layer, timed in turns, taken apart into layers and the rest.

    time(model) = outside + sum over layers of time(kind of the layer)

``outside`` (embeddings, final norm, head, the walk over empty layers) is the base with every layer
removed. A kind's layer is the model with all L layers of it, less ``outside``, over L: the noise of
a layer's time is that of a whole model over L, where a model with one layer converted would leave
it whole. So models of one kind, the base among them, are predicted to take what they took. Whether
times add up between these ends is measured: a model that has the kinds in turn is timed in the same
rounds, and stands in the table.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import cycle, islice

import numpy as np
from numpy.typing import NDArray

from layerwright.tasks.context import Context
from layerwright.tasks.contracts.base import Spec
from layerwright.tasks.contracts.costs import (
    ContextCosts,
    CostTable,
    LayerSpec,
    LayerTime,
    MeasuredTime,
    MixedModel,
    Spread,
)
from layerwright.tasks.contracts.references import ModelRef
from layerwright.tasks.costs.kinds import Kind, kinds_of
from layerwright.tasks.device import timed_on
from layerwright.tasks.disk import write_atomically
from layerwright.tasks.hybrid.modeling import HybridForCausalLM
from layerwright.tasks.hybrid.stock import REMOVED
from layerwright.tasks.models.conversion import unfitted_copy
from layerwright.tasks.models.loading import load_base
from layerwright.tasks.progress import Bar, progress
from layerwright.tasks.recipe.costs import CostOptions
from layerwright.tasks.strategies.remove import Remove
from layerwright.tasks.timing.speed import Speed, interleaved_speeds

OUTSIDE, MIXED = "outside", "mixed"


def measure_costs(
    model: ModelRef, strategies: Sequence[Spec], options: CostOptions, ctx: Context
) -> CostTable:
    """Time what a base's layers can become; lengths that are done stay in ``ctx.workdir``.

    Raises:
        InputError: an unknown strategy or option.
    """
    base = load_base(ctx.store.open_tree(model.sha256), ctx.device)
    return cost_table(base, model.sha256, strategies, options, ctx)


def cost_table(
    base: HybridForCausalLM,
    model_sha256: str,
    strategies: Sequence[Spec],
    options: CostOptions,
    ctx: Context,
) -> CostTable:
    """The table of a base that is loaded.

    Layers are timed as they are before anything is fitted, maps at zero: time follows shapes, not
    values. The one exception is `local` with `widen`, which looks at the values. Strategies that
    decide over their layers together have no time of their own and are left out.

    Args:
        options: with its ``context_tokens``.
    """
    started = time.perf_counter()
    base_specs = base.config.layer_specs or []
    layers = len(base_specs)
    kinds = kinds_of(base_specs, strategies, ctx.log)
    mixed = [kind.spec for kind in islice(cycle(kinds), layers)]
    models = {str(at): unfitted_copy(base, [kind.spec] * layers) for at, kind in enumerate(kinds)}
    models |= {OUTSIDE: unfitted_copy(base, [REMOVED] * layers), MIXED: unfitted_copy(base, mixed)}
    contexts = []
    with progress() as bar:
        for tokens in options.context_tokens:
            file = ctx.workdir / f"{tokens}.json"
            if not file.is_file():
                speeds = _speeds(models, tokens, options, bar)
                costs = _taken_apart(tokens, kinds, speeds, mixed)
                write_atomically(file, costs.model_dump_json().encode())
            contexts.append(ContextCosts.model_validate_json(file.read_bytes()))
            ctx.log(_told(contexts[-1]))
    return CostTable(
        model_sha256=model_sha256,
        timed_on=timed_on(ctx.device),
        dtype=str(base.dtype).removeprefix("torch."),
        batch=options.batch,
        decode_tokens=options.decode_tokens,
        repeats=options.repeats,
        base_specs=tuple(base_specs),
        contexts=tuple(contexts),
        seconds=time.perf_counter() - started,
    )


def _speeds(
    models: Mapping[str, HybridForCausalLM], tokens: int, options: CostOptions, bar: Bar
) -> dict[str, Speed]:
    return interleaved_speeds(
        models,
        tokens,
        decode_tokens=options.decode_tokens,
        repeats=options.repeats,
        batch=options.batch,
        track=partial(bar.track, description=f"costs at {tokens:,} tokens"),
    )


def _taken_apart(
    tokens: int, kinds: Sequence[Kind], speeds: Mapping[str, Speed], mixed: Sequence[LayerSpec]
) -> ContextCosts:
    """Whole models -> layers and the rest, round by round."""
    outside = speeds[OUTSIDE]
    layers = tuple(
        LayerTime(
            spec=kind.spec,
            strategies=kind.strategies,
            prefill_seconds=_of_one_layer(
                speeds[str(at)].prefill_seconds, outside.prefill_seconds, len(mixed)
            ),
            decode_seconds_per_token=_of_one_layer(
                speeds[str(at)].decode_seconds_per_token,
                outside.decode_seconds_per_token,
                len(mixed),
            ),
        )
        for at, kind in enumerate(kinds)
    )
    nothing = Spread(median=0.0, low=0.0, high=0.0)
    removed = LayerTime(
        spec=REMOVED,
        strategies=(Remove.name,),
        prefill_seconds=nothing,
        decode_seconds_per_token=nothing,
    )
    return ContextCosts(
        context_tokens=tokens,
        outside=MeasuredTime(**_whole(outside)),
        layers=(*layers, removed),
        mixed=MixedModel(specs=tuple(mixed), **_whole(speeds[MIXED])),
    )


def _whole(speed: Speed) -> dict[str, Spread]:
    return {
        "prefill_seconds": _spread(speed.prefill_seconds),
        "decode_seconds_per_token": _spread(speed.decode_seconds_per_token),
    }


def _of_one_layer(model: Sequence[float], outside: Sequence[float], layers: int) -> Spread:
    return _spread((np.array(model) - np.array(outside)) / layers)


def _spread(samples: Sequence[float] | NDArray[np.float64]) -> Spread:
    low, median, high = np.quantile(samples, (0.25, 0.5, 0.75))
    return Spread(median=float(median), low=float(low), high=float(high))


def _told(costs: ContextCosts) -> str:
    """What the log says of one length: how well times add up."""
    ratio = costs.adding_up
    return (
        f"costs: {costs.context_tokens:,} tokens, every kind of layer mixed: prediction against "
        f"measurement {ratio.prefill - 1:+.1%} prefill, {ratio.decode - 1:+.1%} decode"
    )
