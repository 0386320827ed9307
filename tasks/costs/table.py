"""The measure_costs step: time a model of each kind of layer, and compute the time per layer.

    time(model) = outside + sum over layers of time(kind of the layer)

``outside`` (embeddings, final norm, head, the loop over removed layers) is the time of the base
with every layer removed. The time of a layer of some kind is

    (time of a model with all L layers of that kind - outside) / L

The division by L also divides the noise. By construction, the prediction is exact for a model whose
layers all have the same kind. To check that times add up for mixed models, a model that alternates
all kinds is timed in the same rounds; the table records its predicted and measured time.
"""

import time
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import cycle, islice

import numpy as np

from layerwright.tasks.context import Context
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
from layerwright.tasks.progress import progress
from layerwright.tasks.recipe.costs import CostOptions
from layerwright.tasks.strategies.base import Strategy
from layerwright.tasks.strategies.remove import Remove
from layerwright.tasks.timing.speed import Speed, interleaved_speeds

OUTSIDE, MIXED = "outside", "mixed"


def measure_costs(
    model: ModelRef, strategies: Sequence[Strategy], options: CostOptions, ctx: Context
) -> CostTable:
    """Load the base and measure its cost table.

    Results per context length are saved in ``ctx.workdir``, so an interrupted step resumes.
    """
    base = load_base(ctx.store.open_tree(model.sha256), ctx.device)
    return cost_table(base, model.sha256, strategies, options, ctx)


def cost_table(
    base: HybridForCausalLM,
    model_sha256: str,
    strategies: Sequence[Strategy],
    options: CostOptions,
    ctx: Context,
) -> CostTable:
    """Measure the cost table of a loaded base.

    Layers are timed unfitted, with linear maps at zero, because time depends on shapes and not on
    values. The only exception is `local` with `widen`, which depends on the values. Strategies that
    decide over their layers together are skipped, because a single layer of them has no time.
    """
    started = time.perf_counter()
    base_specs = base.config.layer_specs or []
    layers = len(base_specs)
    kinds = kinds_of(base_specs, strategies, ctx.log)
    mixed = [kind.spec for kind in islice(cycle(kinds), layers)]
    models = {str(i): unfitted_copy(base, [kind.spec] * layers) for i, kind in enumerate(kinds)}
    models |= {OUTSIDE: unfitted_copy(base, [REMOVED] * layers), MIXED: unfitted_copy(base, mixed)}
    contexts = []
    with progress() as bar:
        for tokens in options.context_tokens:
            file = ctx.workdir / f"{tokens}.json"
            if not file.is_file():
                speeds = interleaved_speeds(
                    models,
                    tokens,
                    decode_tokens=options.decode_tokens,
                    repeats=options.repeats,
                    batch=options.batch,
                    track=partial(bar.track, description=f"costs at {tokens:,} tokens"),
                )
                costs = _costs(tokens, kinds, speeds, mixed)
                write_atomically(file, costs.model_dump_json().encode())
            contexts.append(ContextCosts.model_validate_json(file.read_bytes()))
            ratio = contexts[-1].adding_up
            ctx.log(
                f"costs at {tokens:,} tokens: for the model with mixed layers, the predicted time "
                f"is off by {ratio.prefill - 1:+.1%} in prefill and "
                f"{ratio.decode - 1:+.1%} in decode"
            )
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


def _costs(
    tokens: int, kinds: Sequence[Kind], speeds: Mapping[str, Speed], mixed: Sequence[LayerSpec]
) -> ContextCosts:
    """Compute the times of single layers from the times of whole models, round by round."""

    def times(speed: Speed, less: Speed | None = None) -> dict[str, Spread]:
        """The spread of a model's times; with ``less``, of a layer's."""
        spreads = {}
        for name in ("prefill_seconds", "decode_seconds_per_token"):
            samples = np.array(getattr(speed, name))
            if less:
                samples = (samples - np.array(getattr(less, name))) / len(mixed)
            low, median, high = np.quantile(samples, (0.25, 0.5, 0.75))
            spreads[name] = Spread(median=float(median), low=float(low), high=float(high))
        return spreads

    outside = speeds[OUTSIDE]
    layers = [
        LayerTime(**dict(kind), **times(speeds[str(i)], outside)) for i, kind in enumerate(kinds)
    ]
    nothing = Spread(median=0.0, low=0.0, high=0.0)
    removed = LayerTime(
        spec=REMOVED,
        strategies=(Remove.name,),
        prefill_seconds=nothing,
        decode_seconds_per_token=nothing,
    )
    return ContextCosts(
        context_tokens=tokens,
        outside=MeasuredTime(**times(outside)),
        layers=(*layers, removed),
        mixed=MixedModel(specs=tuple(mixed), **times(speeds[MIXED])),
    )
