"""Cost tables with made-up times, for what is predicted from them."""

from layerwright.tasks.contracts.costs import (
    ContextCosts,
    CostTable,
    LayerSpec,
    LayerTime,
    MeasuredTime,
    MixedModel,
    Spread,
)

FULL = {"mixer": {"kind": "full"}, "feed_forward": {"kind": "mlp"}}
MAP = {"mixer": {"kind": "none"}, "feed_forward": {"kind": "linear"}}
REMOVED = {"mixer": {"kind": "none"}, "feed_forward": {"kind": "none"}}
STREAMED = {
    "mixer": {"kind": "streaming", "sinks": 4, "window": 64},
    "feed_forward": FULL["feed_forward"],
}
# seconds of a prefill, and of each token behind it; powers of two add up exactly
TIMES = [(FULL, (8.0, 4.0)), (STREAMED, (4.0, 3.0)), (MAP, (0.5, 0.25)), (REMOVED, (0.0, 0.0))]
OUTSIDE = (2.0, 1.0)


def cost_table(layers: int, *lengths: int, times=TIMES) -> CostTable:
    """A table of a base of full layers; every time is the same at all lengths."""
    base = [FULL] * layers
    return CostTable(
        model_sha256="a" * 64,
        timed_on={"device": "a made-up processor", "threads": "2", "torch": "2.13.0"},
        dtype="float32",
        batch=1,
        decode_tokens=32,
        repeats=5,
        base_specs=tuple(base),
        contexts=tuple(_costs(tokens, times, base) for tokens in lengths),
        seconds=7.0,
    )


def _costs(tokens: int, times, base: list[LayerSpec]) -> ContextCosts:
    _, kept = times[0]
    whole = [len(base) * kept[part] + OUTSIDE[part] for part in (0, 1)]
    return ContextCosts(
        context_tokens=tokens,
        outside=MeasuredTime(**_spreads(*OUTSIDE)),
        layers=tuple(
            LayerTime(spec=spec, strategies=(), **_spreads(*seconds)) for spec, seconds in times
        ),
        mixed=MixedModel(specs=tuple(base), **_spreads(*whole)),
    )


def _spreads(prefill: float, decode: float) -> dict[str, Spread]:
    return {
        "prefill_seconds": Spread(median=prefill, low=prefill, high=prefill),
        "decode_seconds_per_token": Spread(median=decode, low=decode, high=decode),
    }
